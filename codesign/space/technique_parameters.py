"""What a search over techniques chooses from, and what it starts with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from accelerators import FOLD_TIMINGS, Accelerator, ConfigError
from codesign.space.checks import check_design
from codesign.space.grouping import has_few_channels, has_one_tap
from codesign.space.parameters import BUFFERS, Parameter
from codesign.space.techniques import DENSE, NETWORK, dials, is_above, members
from simulator import Technique, bits_of_sums, techniques
from simulator.running.sums import most_bits
from workloads.errors import TraceError
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

# Ends the name of the parameter that chooses a group's technique.
TECHNIQUE = ".technique"
# Ends that of what multiplies a buffer's fitted capacity.
TIMES = ".times"
# Ends that of whether a design has a unit that its techniques can do without.
USED = ".used"
# Columns that are multiplied in a pass, of all layers with a technique.
PASS_COLUMNS = "pass_columns"
# Of a tile's vectors, those that are taken to be multiplied, to fit the hardware to.
REMAINING = "remaining"
_REMAINING = (0.25, 0.35, 0.5, 0.75)
_START_REMAINING = 0.35
_TIMES = (0.25, 0.5, 0.75, 1, 2)
_ARRAY_SIZES = {
    "array.rows": (8, 16, 32, 64, 128),
    "array.columns": (8, 16, 32, 48, 64, 96, 128),
}
# Of accumulators.
_WIDTHS = (16, 24, 32)


def fitting_widths(trace: WorkloadTrace) -> tuple[int, ...]:
    """Of accumulators, those that hold every partial sum of the trace; of one without tensors,
    those that hold any."""
    try:
        bits = bits_of_sums(trace, beyond=min(_WIDTHS))
    except TraceError:
        bits = {layer.name: most_bits(layer) for layer in trace.layers}
    return tuple(width for width in _WIDTHS if width >= max(bits.values())) or _WIDTHS[-1:]


def check_units(base: Accelerator, techniques: Sequence[Technique]) -> None:
    """A design must have the units of every technique."""
    check_design(base)
    for technique in techniques:
        missing = [name for name in technique.units if getattr(base, name, None) is None]
        if missing:
            raise ConfigError(
                f"DesignSpace.base must have the units of technique {technique.name!r}, got "
                f"{base.name!r} without {', '.join(missing)}; add them, use a preset that has "
                "them, or leave the technique out"
            )


def options_in(base: Accelerator, techniques: Iterable[Technique]) -> tuple[str, ...]:
    """Units of a design that techniques make use of and can do without."""
    own = (name for technique in techniques for name in technique.options)
    return tuple(dict.fromkeys(name for name in own if getattr(base, name, None) is not None))


def usual_fields(technique: Technique) -> dict[str, Any]:
    """Field of its policy -> its value where nobody searches it."""
    assert technique.policy is not None
    needed = {name: choices[0] for name, choices in technique.choices.items()}
    made = technique.policy(**{**needed, **technique.start})
    kinds = {path.rpartition(".")[2] for path in technique.hardware}
    return {name: getattr(made, name) for name in technique.fields if name not in kinds}


def names_of(technique: Technique, of: str, groups: Iterable[str]) -> list[str]:
    """The parameters that a setting of a technique is chosen by: one, or one a group."""
    name = f"{technique.name}.{of}"
    return [f"{group}.{name}" for group in groups] if of in dials(technique) else [name]


def usual_parameters(
    base: Accelerator,
    names: Sequence[str],
    groups: Mapping[str, tuple[str, ...]],
    layers: Sequence[Layer],
    widths: tuple[int, ...],
) -> tuple[list[Parameter], dict[str, Any]]:
    """What is chosen, and the values of the first start.

    Args:
        base: the design.
        names: of the techniques that groups, or the network, choose from, beside none.
        groups: name -> layers.
        layers: those of all groups.
        widths: of accumulators.
    """
    start: dict[str, Any] = {
        "array.rows": base.array.rows,
        "array.columns": base.array.columns,
        # Tiles are short: folds one after the other would mostly fill and drain the array.
        "array.fold_timing": "overlapped",
        "accumulator_bits": base.accumulator_bits,
        PASS_COLUMNS: base.array.columns,
        REMAINING: _START_REMAINING,
    }
    choices: dict[str, tuple[Any, ...]] = {
        **_ARRAY_SIZES,
        "accumulator_bits": widths,
        PASS_COLUMNS: (8, 16, 32, 64, 128, 256),
        REMAINING: _REMAINING,
    }
    for name in BUFFERS:
        if getattr(base, name) is not None:
            choices[f"{name}{TIMES}"] = _TIMES
            start[f"{name}{TIMES}"] = 1
    longest = max(layer.gemm.k for layer in layers)
    chosen = [techniques()[name] for name in dict.fromkeys(n for of in names for n in members(of))]
    for technique in chosen:
        usual = usual_fields(technique)
        for of, values in technique.choices.items():
            kept = values
            if of == "length":
                kept = tuple(value for value in values if value <= longest) or (longest,)
            for name in names_of(technique, of, groups):
                choices[name] = kept
                start[name] = Parameter.of(name, kept).nearest(usual[of])
        for path, kinds in technique.hardware.items():
            unit, _, of = path.rpartition(".")
            start[path] = getattr(getattr(base, unit), of)
            choices[path] = kinds if start[path] in kinds else (start[path], *kinds)
    parameters = []
    for name, values in choices.items():
        known = Parameter.of(name, values)
        if known.ordered:
            known = replace(known, choices=tuple(sorted({*values, start[name]})))
        parameters.append(known)
    parameters.append(Parameter(name="array.fold_timing", choices=FOLD_TIMINGS, ordered=False))
    for unit in options_in(base, chosen):
        name = f"{unit}{USED}"
        parameters.append(Parameter(name=name, choices=(False, True), ordered=False))
        start[name] = False
    above = tuple(each.name for each in chosen if is_above(each))
    kinds = (DENSE, *(name for name in names if name not in (*above, DENSE)))
    if above:
        parameters.append(
            Parameter(name=f"{NETWORK}{TECHNIQUE}", choices=(DENSE, *above), ordered=False)
        )
        start[f"{NETWORK}{TECHNIQUE}"] = above[0] if len(kinds) == 1 else DENSE
    first = kinds[1] if len(kinds) > 1 else DENSE
    # Looking costs as much at one tap as at nine, and saves a ninth.
    of_few = {layer.name for layer in layers if has_few_channels(layer) or has_one_tap(layer)}
    for group, own in groups.items():
        name = f"{group}{TECHNIQUE}"
        parameters.append(Parameter(name=name, choices=kinds, ordered=False))
        start[name] = DENSE if {*own} <= of_few else first
    if all(start[f"{group}{TECHNIQUE}"] == DENSE for group in groups):
        start |= {f"{group}{TECHNIQUE}": first for group in groups}
    return parameters, start
