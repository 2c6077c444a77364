"""Power that a meter logged beside the runs.

time,watts
2026-11-22T12:00:00.0Z,3.41
2026-11-22T12:00:00.5Z,5.02

`time` is ISO 8601 with its offset from UTC, or seconds since 1970; other columns are passed over.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from accelerators import ConfigError
from workloads.reading import refuse_endless

# Fewer samples inside a run say more about the meter's moment than about the run.
_LEAST_SAMPLES = 2
# Seconds since 1970 of the year 2286; milliseconds are a thousand times today's.
_LATEST_S = 1e10


@dataclass(frozen=True, kw_only=True, eq=False)
class Meter:
    """A power log.

    Attributes:
        name: of its file.
        times_s: `(n,)` float64 seconds since 1970, ascending.
        watts: `(n,)` float64.
    """

    name: str
    times_s: np.ndarray
    watts: np.ndarray

    def energy_j(self, start_s: float, end_s: float) -> float:
        """Energy of a window: straight lines between samples, integrated exactly.

        Args:
            start_s: seconds since 1970.
            end_s: later than that.

        Raises:
            ConfigError: the log does not cover the window, or has too few samples in it.
        """
        inside = (self.times_s >= start_s) & (self.times_s <= end_s)
        window = f"the window {utc(start_s)} to {utc(end_s)}"
        if not len(self.times_s) or self.times_s[0] > start_s or self.times_s[-1] < end_s:
            raise ConfigError(
                f"meter {self.name} must cover {window}, got {self._extent()}; start logging "
                "before the runs and stop after them, with both clocks set"
            )
        if inside.sum() < _LEAST_SAMPLES:
            raise ConfigError(
                f"meter {self.name} must have {_LEAST_SAMPLES} samples or more in {window}, got "
                f"{inside.sum()}; give more --repeats, or log faster"
            )
        times = np.concatenate([[start_s], self.times_s[inside], [end_s]])
        watts = np.interp(times, self.times_s, self.watts)
        return float(np.sum(np.diff(times) * (watts[1:] + watts[:-1]) / 2))

    def mean_watts(self, start_s: float, end_s: float) -> float:
        """Energy of a window over its length; raises as `energy_j`."""
        return self.energy_j(start_s, end_s) / (end_s - start_s)

    def _extent(self) -> str:
        if not len(self.times_s):
            return "no samples"
        return f"samples from {utc(self.times_s[0])} to {utc(self.times_s[-1])}"


def read_meter(path: str | Path) -> Meter:
    """Read a power log.

    Raises:
        ConfigError: the file cannot be read, or the first line that breaks a rule.
    """
    place = Path(path)
    times, watts = [], []
    try:
        refuse_endless(place)
        with place.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            for name in ("time", "watts"):
                if name not in (reader.fieldnames or []):
                    raise ConfigError(
                        f"meter {place} must have the column {name!r}, got "
                        f"{', '.join(reader.fieldnames or []) or 'an empty file'}; name the "
                        "columns time and watts"
                    )
            for cells in reader:
                at = f"meter {place} line {reader.line_num}"
                times.append(_seconds(cells, at))
                watts.append(_watts(cells, at))
                if len(times) > 1 and times[-1] <= times[-2]:
                    raise ConfigError(
                        f"{at} time must be later than the line before, got {cells['time']!r}; "
                        "sort the log by time"
                    )
    except ConfigError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"meter {place} must be a readable CSV file, got {error}; give its path"
        ) from error
    return Meter(name=str(place), times_s=np.array(times), watts=np.array(watts))


def _seconds(cells: Mapping[str, str | None], at: str) -> float:
    given = (cells["time"] or "").strip()
    fix = "write 2026-11-22T12:00:00.5Z or seconds since 1970"
    try:
        seconds = float(given)
    except ValueError:
        pass
    else:
        if 0 < seconds < _LATEST_S:
            return seconds
        raise ConfigError(f"{at} time must be seconds since 1970, got {given!r}; {fix}")
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(
            f"{at} time must be a time with its offset from UTC, got {given!r}; {fix}"
        )
    return moment.timestamp()


def _watts(cells: Mapping[str, str | None], at: str) -> float:
    given = (cells["watts"] or "").strip()
    try:
        watts = float(given)
    except ValueError:
        watts = math.nan
    if not 0 <= watts < math.inf:
        raise ConfigError(f"{at} watts must be a number of at least 0, got {given!r}; mend it")
    return watts


def utc(seconds: float) -> str:
    """ISO 8601 in UTC, to the microsecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
