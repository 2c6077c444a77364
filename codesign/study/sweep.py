"""Sweeps fields of an accelerator over one workload, with the same reuse decisions everywhere."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerators import Accelerator, ConfigError
from accelerators.rules import nearest
from codesign.space.fields import field_types, with_fields
from codesign.space.values import read_value
from simulator import ReusePolicy, SimulationReport, decide, simulate
from simulator.results.costs import cost_sources, costs_line
from simulator.results.differences import (
    RESOLUTION_PERCENT,
    against_one,
    counted,
    ratio_text,
)
from simulator.results.names import limit_name
from simulator.results.rows import write_rows
from simulator.results.tables import column, percent, shown
from workloads.traces.trace import WorkloadTrace, not_counted_line

_MOST_POINTS = 10_000
_EXAMPLE = "write for example --set array.rows=8,16,32"
_PRICING = ("technology", "dram.kind")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A field to vary.

    Attributes:
        path: of the field within the accelerator, with dots.
        values: of the field's type, at least one.
    """

    path: str
    values: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination of values.

    Attributes:
        values: path -> value.
        numbers: what came out, one number or name each; empty where the combination is invalid.
        reason: why it is invalid; `None` where it is not.
    """

    values: Mapping[str, Any]
    numbers: Mapping[str, Any]
    reason: str | None = None

    @property
    def name(self) -> str:
        """The values in a line."""
        return ", ".join(f"{path}={value}" for path, value in self.values.items())


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All combinations on one workload.

    Attributes:
        base: the design whose fields are varied.
        workload: provenance of the trace.
        images: in the batch.
        policy: what decided, as plain values.
        settings: the fields and their values.
        points: every combination, the last setting changing fastest.
    """

    base: Accelerator
    workload: Mapping[str, Any]
    images: int
    policy: Mapping[str, Any]
    settings: tuple[Setting, ...]
    points: tuple[Point, ...]

    @property
    def simulated(self) -> list[Point]:
        """The valid combinations."""
        return [point for point in self.points if point.reason is None]

    @property
    def skipped(self) -> list[Point]:
        """The invalid combinations."""
        return [point for point in self.points if point.reason is not None]

    @property
    def verdict(self) -> str:
        """The fastest and the most frugal combination."""
        text = (
            f"Fewest cycles at {self._least('cycles_per_image')}, least energy at "
            f"{self._least('energy_uj_per_image')}."
        )
        if self.base.has_reuse:
            best = max(self.simulated, key=lambda point: point.numbers["speedup_equal_area"])
            speedup = best.numbers["speedup_equal_area"]
            is_as_fast = against_one(speedup) == 0
            text = (
                "Against a dense design of equal area, reuse is at best "
                f"{'as fast' if is_as_fast else f'{ratio_text(speedup)}× as fast'}, "
                f"at {best.name}. {text}"
            )
        return f"{text} {not_counted_line(self.workload)}".rstrip()

    def _least(self, number: str) -> str:
        """The combination with the least of a number, and how many are not told apart from it."""
        best = min(self.simulated, key=lambda point: point.numbers[number])
        alike = sum(
            against_one(point.numbers[number] / best.numbers[number]) == 0
            for point in self.simulated
        )
        if alike == 1:
            return best.name
        return f"{best.name} ({counted(alike - 1, 'other')} within {RESOLUTION_PERCENT} % of it)"

    @property
    def priced(self) -> list[Accelerator]:
        """The base design, as each of the valid combinations prices it."""
        ways: dict[tuple[Any, ...], dict[str, Any]] = {}
        for point in self.simulated:
            values = {path: point.values[path] for path in _PRICING if path in point.values}
            ways.setdefault(tuple(values.values()), values)
        return [with_fields(self.base, values) for values in ways.values()]

    @property
    def costs(self) -> str:
        """What prices the designs, in a line."""
        return costs_line(*self.priced)

    @property
    def columns(self) -> list[dict[str, Any]]:
        """Columns of the table of combinations."""
        speedup = [column("speedup", "Speed", "× dense, equal area")] if self.base.has_reuse else []
        return [
            *(column(setting.path, setting.path) for setting in self.settings),
            *speedup,
            column("cycles", "Time", "cycles per image"),
            column("latency_ms_per_image", "Time", "ms per image"),
            column("energy_uj_per_image", "Energy", "µJ per image"),
            column("area_mm2", "Area", "mm²"),
            column("used", "Utilization", "% of the array's peak"),
            column("bound", "Bound by", text=True),
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row of the table for each valid combination."""
        described = self.base.to_dict()
        return [
            {
                **{path: shown(value) for path, value in point.values.items()},
                **point.numbers,
                "cycles": round(point.numbers["cycles_per_image"]),
                "speedup": ratio_text(point.numbers.get("speedup_equal_area", 1.0)),
                "used": percent(point.numbers["utilization"]),
                "bound": limit_name(point.numbers["bound_by"], described),
            }
            for point in self.simulated
        ]

    def write_csv(self, path: str | Path) -> Path:
        """Write a row for each combination; invalid ones have a reason and no numbers."""
        empty = dict.fromkeys(self.simulated[0].numbers)
        return write_rows(
            path,
            [
                {**point.values, **empty, **point.numbers, "reason": point.reason}
                for point in self.points
            ],
        )


def sweep(
    trace: WorkloadTrace,
    base: Accelerator,
    policy: ReusePolicy,
    settings: Sequence[Setting],
    *,
    calibration: WorkloadTrace | None = None,
    engine: str = "compiled",
    on_point: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Simulate every combination of values; reuse is decided once and replayed on each design.

    Args:
        trace: the captured workload.
        base: the design; fields that are not varied stay.
        policy: the reuse.
        settings: the fields and their values.
        calibration: see `simulator.decide`.
        engine: see `simulator.simulate`.
        on_point: told after each combination how many are done, of how many.

    Raises:
        ConfigError: no combination is valid, or there are more than 10,000.
    """
    total = math.prod(len(setting.values) for setting in settings)
    if total > _MOST_POINTS:
        raise ConfigError(
            f"sweep must have at most {_MOST_POINTS} combinations, got {total}; give fewer values"
        )
    run = decide(trace, policy, calibration=calibration)
    points = []
    grid = itertools.product(*(setting.values for setting in settings))
    for done, values in enumerate(grid, start=1):
        point = dict(zip((setting.path for setting in settings), values, strict=True))
        try:
            report = simulate(trace, with_fields(base, point), run, engine=engine)
            points.append(Point(values=point, numbers=_numbers(report)))
        except ConfigError as error:
            points.append(Point(values=point, numbers={}, reason=str(error)))
        if on_point is not None:
            on_point(done, total)
    found = Sweep(
        base=base,
        workload=dict(trace.provenance),
        images=trace.images,
        policy=run.policy,
        settings=tuple(settings),
        points=tuple(points),
    )
    if not found.simulated:
        raise ConfigError(
            f"sweep must have a valid combination, got none of {total}; "
            f"the first, {points[0].name}: {points[0].reason}"
        )
    return found


def _numbers(report: SimulationReport) -> dict[str, Any]:
    design = report.reuse
    return {
        "cycles_per_image": design.cycles / design.images,
        "latency_ms_per_image": design.latency_ms_per_image,
        "energy_uj_per_image": design.energy_uj_per_image,
        "area_mm2": design.area_mm2,
        "utilization": design.utilization,
        "bound_by": design.bound_by,
        "dram_bytes_per_image": sum(design.dram_bytes.values()) / design.images,
        **(report.ratios if design.accelerator.has_reuse else {}),
        **cost_sources(design.accelerator),
    }


def read_settings(texts: Sequence[str], base: Accelerator) -> tuple[Setting, ...]:
    """The fields and values of `PATH=VALUE,VALUE,...` each.

    Args:
        texts: as given to `--set`, at least one.
        base: the design that has the fields.

    Raises:
        ConfigError: a text is malformed, names no field of `base`, or has a value of another type.
    """
    if not texts:
        raise ConfigError(f"--set must name a field to vary, got none; {_EXAMPLE}")
    types = field_types(base)
    settings: list[Setting] = []
    for text in texts:
        path, separator, values = text.partition("=")
        if not separator or not path or not all(part.strip() for part in values.split(",")):
            raise ConfigError(f"--set must be FIELD=VALUE,VALUE,..., got {text!r}; {_EXAMPLE}")
        if path not in types:
            raise ConfigError(_unknown(path, list(types), base))
        if path == "name":
            raise ConfigError(
                "--set must name a field that changes a design, got 'name', which does not; "
                f"{_EXAMPLE}"
            )
        if any(path == setting.path for setting in settings):
            raise ConfigError(f"--set must name a field once, got {path!r} again; join its values")
        found = tuple(
            read_value(f"--set {path}", part.strip(), types[path]) for part in values.split(",")
        )
        if len(set(found)) < len(found):
            raise ConfigError(
                f"--set {path} must have each value once, got {values!r}; leave out the repeated"
            )
        settings.append(Setting(path=path, values=found))
    return tuple(settings)


def _unknown(path: str, known: list[str], base: Accelerator) -> str:
    """What to say of a field that the design does not have."""
    part = path.partition(".")[0]
    if getattr(base, part, 0) is None:
        return (
            f"--set must name a field of {base.name!r}, got {path!r}, but it has no {part}; use a "
            "design that has one"
        )
    near = nearest(path, known)
    own = [name for name in known if name.startswith(f"{part}.")]
    fix = (
        f"use {near!r}"
        if near and not (own and path == part)
        else f"the fields are {', '.join(own or known)}"
    )
    return f"--set must name a field of an accelerator, got {path!r}; {fix}"
