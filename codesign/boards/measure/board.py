"""What a board tells about itself while it is measured: name, clock, temperature, throttling.

Clocks and temperatures are Linux's (Documentation/ABI/testing/sysfs-devices-system-cpu and
sysfs-class-thermal), throttling is what a Raspberry Pi's firmware answers to `vcgencmd
get_throttled`. What a board does not tell is left out, never guessed.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# Bits of get_throttled: now, and 16 higher the same since boot.
_EVENTS = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
}
_SINCE_BOOT = 16
# A clock this far below the highest seen was taken back while measuring.
_STEADY = 0.98


@dataclass(frozen=True, kw_only=True)
class Board:
    """A device.

    Attributes:
        name: as the firmware or the processor calls it.
        cores: that this process may use.
        root: where its file system begins.
    """

    name: str
    cores: int
    root: Path = Path("/")

    @classmethod
    def here(cls, root: Path = Path("/")) -> Board:
        """The device that this runs on."""
        return cls(name=_name(root), cores=_cores(), root=root)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _name(root: Path) -> str:
    """The device tree's model, as on a Raspberry Pi, else the processor's."""
    model = _text(root / "proc/device-tree/model")
    if model:
        return model
    found = re.search(r"^model name\s*:\s*(.+)$", _text(root / "proc/cpuinfo") or "", re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip(" \n\0")
    except OSError:
        return None


def _numbers(root: Path, pattern: str, unit: float) -> list[float]:
    """Whole numbers in the files of a pattern, divided by a unit."""
    texts = [_text(path) or "" for path in root.glob(pattern)]
    return [int(text) / unit for text in texts if re.fullmatch(r"-?\d+", text)]


def throttled_flags() -> int | None:
    """Bits that a Raspberry Pi's firmware gives, `None` on another board."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parsed_flags(done.stdout)


def parsed_flags(answer: str) -> int | None:
    """The bits of an answer such as `throttled=0x50005`."""
    found = re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})", answer.strip())
    return int(found.group(1), 16) if found else None


def throttling(before: int, after: int) -> str:
    """What the firmware's flags, read before and after a run, say of the run.

    A flag "since boot" that was set already before may have been set again: that is said.
    """
    newly = (after & ~before) >> _SINCE_BOOT
    during = [name for bit, name in _EVENTS.items() if (before | after | newly) >> bit & 1]
    if during:
        return f"firmware says {', '.join(during)} while measuring"
    earlier = [name for bit, name in _EVENTS.items() if before >> _SINCE_BOOT >> bit & 1]
    if earlier:
        return f"firmware says {', '.join(earlier)} since boot, perhaps not while measuring"
    return "firmware says no throttling"


@dataclass(kw_only=True)
class BoardWatch:
    """Notes clock and temperature between timed runs, in the time of none of them.

    Attributes:
        board: the device.
        flags: reads the firmware's throttling bits.
    """

    board: Board
    flags: Callable[[], int | None] = throttled_flags
    _clocks_mhz: list[float] = field(default_factory=list, init=False)
    _temperatures_c: list[float] = field(default_factory=list, init=False)
    _before: int | None = field(default=None, init=False)
    _after: int | None = field(default=None, init=False)

    def start(self) -> None:
        """Before the first run."""
        self._before = self.flags()
        self.sample()

    def sample(self) -> None:
        """Between runs: the fastest core's clock and the hottest zone's temperature."""
        root = self.board.root
        clocks = _numbers(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq", 1e3)
        zones = _numbers(root, "sys/class/thermal/thermal_zone*/temp", 1e3)
        self._clocks_mhz += [max(clocks)] if clocks else []
        self._temperatures_c += [max(zones)] if zones else []

    def stop(self) -> None:
        """After the last run."""
        self.sample()
        self._after = self.flags()

    @property
    def clock_mhz(self) -> float | None:
        """Median over the runs."""
        return statistics.median(self._clocks_mhz) if self._clocks_mhz else None

    @property
    def conditions(self) -> str:
        """All that the board told, in a line."""
        told = [self._clock_text(), self._temperature_text()]
        if self._before is not None and self._after is not None:
            told.append(throttling(self._before, self._after))
        known = "; ".join(each for each in told if each)
        return known or "the device tells neither clock nor temperature"

    def _clock_text(self) -> str:
        if not self._clocks_mhz:
            return ""
        low, high = min(self._clocks_mhz), max(self._clocks_mhz)
        pattern = "sys/devices/system/cpu/cpu[0-9]*/cpufreq"
        limits = _numbers(self.board.root, f"{pattern}/cpuinfo_max_freq", 1e3)
        governors = {_text(p) or "" for p in self.board.root.glob(f"{pattern}/scaling_governor")}
        text = f"clock {_span(low, high)} MHz"
        text += f" of at most {max(limits):.0f}" if limits else ""
        text += f", governor {' and '.join(sorted(governors))}" if any(governors) else ""
        return text + (", unsteady" if low < _STEADY * high else "")

    def _temperature_text(self) -> str:
        if not self._temperatures_c:
            return ""
        return f"{_span(min(self._temperatures_c), max(self._temperatures_c))} degrees C"


def _span(low: float, high: float) -> str:
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
