"""General-purpose processors, such as a Raspberry Pi's, as the simulator's CPU model sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.rules import (
    ConfigError,
    Relation,
    choose,
    flag,
    integer,
    named,
    optional,
    quoted,
    real,
    refuse,
    show,
    text,
    violations,
)


def _load_is_not_below_idle(processor: Processor) -> list[str]:
    if processor.idle_power_w is None or processor.load_power_w >= processor.idle_power_w:
        return []
    return [
        f"load_power_w must be at least idle_power_w={processor.idle_power_w:g}, got "
        f"{processor.load_power_w:g}; give both for the whole board"
    ]


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A multi-core CPU with SIMD units, its caches, its memory and its board's power.

    Attributes:
        name: 1 to 100 characters.
        cores: of one kind, 1 to 1024.
        clock_hz: of the cores.
        simd_bits: that all SIMD units of a core take in a cycle, 64 to 4096.
        fp16_arithmetic: whether SIMD computes in fp16; where not, fp16 runs as fp32.
        int8_macs_per_cycle: multiply-accumulates of int8 a core does in a cycle at most; fp32 and
            fp16 do one in each 32 or 16 bits of `simd_bits`.
        l1_data_bytes: of one core.
        last_level_cache_bytes: of the last cache, which all cores share.
        dram_bytes_per_second: read and written together, as one core copies: twice its memcpy.
        idle_power_w: of the whole board, `None` if unknown.
        load_power_w: of the whole board with all cores busy.
        fitted_on: the board whose fitted efficiencies apply, a key of the CPU model's constants
            (`simulator.processor_constants`); keep it when varying a preset.

    Raises:
        ConfigError: with every broken rule.

    Not modelled: other caches, frequency scaling, throttling, other processes, a GPU.
    """

    name: str = field(metadata=text(100, "Pi 4B"))
    cores: int = field(metadata=integer(1, 1024))
    clock_hz: float = field(metadata=real(1e6, 1e11))
    simd_bits: int = field(metadata=integer(64, 4096, multiple_of=32))
    fp16_arithmetic: bool = field(metadata=flag())
    int8_macs_per_cycle: int = field(metadata=integer(1, 4096))
    l1_data_bytes: int = field(metadata=integer(1024, 2**30))
    last_level_cache_bytes: int = field(metadata=integer(1024, 2**34))
    dram_bytes_per_second: float = field(metadata=real(1e6, 1e13))
    idle_power_w: float | None = field(metadata=optional(real(0, 1e5)))
    load_power_w: float = field(metadata=real(0.001, 1e5))
    fitted_on: str = field(metadata=text(100, "Pi 4B"))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("idle_power_w", "load_power_w"), _load_is_not_below_idle),
    )

    def __post_init__(self) -> None:
        refuse(violations(self, "Processor"))

    def macs_per_cycle(self, precision: str) -> int:
        """Multiply-accumulates one core does in a cycle at most, in "fp32", "fp16" or "int8"."""
        match precision if isinstance(precision, str) else None:
            case "fp32":
                return self.simd_bits // 32
            case "fp16":
                return self.simd_bits // (16 if self.fp16_arithmetic else 32)
            case "int8":
                return self.int8_macs_per_cycle
        names = ("fp32", "fp16", "int8")
        raise ConfigError(
            f"precision must be {quoted(names)}, got {show(precision, str)}; "
            f"{choose(precision, names)}"
        )

    def power_w(self, threads: int) -> float | None:
        """The board's power with 1 to `cores` threads busy, in proportion between idle and load;
        `None` if idle is unknown and some cores rest."""
        if threads == self.cores:
            return self.load_power_w
        if self.idle_power_w is None:
            return None
        return self.idle_power_w + (self.load_power_w - self.idle_power_w) * threads / self.cores


# Bandwidth, caches and power: data/SOURCES.md names a source for each figure. memcpy counts a byte
# copied once; it is read and written.
_CORTEX_A53 = {
    "cores": 4,
    "simd_bits": 128,
    "fp16_arithmetic": False,
    "int8_macs_per_cycle": 8,
    "l1_data_bytes": 32 * 1024,
    "last_level_cache_bytes": 512 * 1024,
}
_PROCESSORS = (
    Processor(
        name="Pi Zero 2 W",
        clock_hz=1.0e9,
        dram_bytes_per_second=2 * 1.30e9,
        idle_power_w=None,
        load_power_w=2.1,
        fitted_on="Pi Zero 2 W",
        **_CORTEX_A53,  # type: ignore[arg-type]
    ),
    Processor(
        name="Pi 3B+",
        clock_hz=1.4e9,
        dram_bytes_per_second=2 * 1.12e9,
        idle_power_w=3.1,
        load_power_w=5.6,
        fitted_on="Pi 3B+",
        **_CORTEX_A53,  # type: ignore[arg-type]
    ),
    Processor(
        name="Pi 4B",
        cores=4,
        clock_hz=1.8e9,
        simd_bits=128,
        fp16_arithmetic=False,
        int8_macs_per_cycle=8,
        l1_data_bytes=32 * 1024,
        last_level_cache_bytes=1024 * 1024,
        dram_bytes_per_second=2 * 2.33e9,
        idle_power_w=1.6,
        load_power_w=5.0,
        fitted_on="Pi 4B",
    ),
    Processor(
        name="Pi 5",
        cores=4,
        clock_hz=2.4e9,
        simd_bits=256,
        fp16_arithmetic=True,
        int8_macs_per_cycle=32,
        l1_data_bytes=64 * 1024,
        last_level_cache_bytes=2 * 1024 * 1024,
        dram_bytes_per_second=2 * 5.27e9,
        idle_power_w=2.8,
        load_power_w=9.7,
        fitted_on="Pi 5",
    ),
)


def processor_presets() -> dict[str, Processor]:
    """Every ready processor by name, in a new dictionary; the names are those of the baselines."""
    return {processor.name: processor for processor in _PROCESSORS}


def processor_preset(name: str) -> Processor:
    """One ready processor, ``"Pi 4B"``.

    Raises:
        ConfigError: no processor has this name; the message names the nearest.
    """
    return named("processor preset name", name, processor_presets())
