"""The space of a technique for each group of layers, on hardware that fits what is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from accelerators import FOLD_TIMINGS, Accelerator, ConfigError, SystolicArray
from codesign.space.checks import all_of, check_design, whole
from codesign.space.design_space import DesignSpace
from codesign.space.fields import with_fields
from codesign.space.grouping import groups_of, has_few_channels, has_one_tap
from codesign.space.parameters import (
    ARRAY_SIZES,
    BUFFERS,
    KIB,
    Condition,
    Parameter,
    reusable_layers,
)
from codesign.space.techniques import DENSE, Technique, found_techniques
from simulator import NoReuse, PerLayer, ReusePolicy, bits_of_sums, fitted_design
from simulator.running.sums import most_bits
from simulator.timing.dense_baseline import best_dense
from simulator.timing.fitting import least_bytes
from workloads.errors import TraceError, show
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

# Ends the name of the parameter that chooses a group's technique.
TECHNIQUE = ".technique"
# Ends that of what multiplies a buffer's fitted capacity.
TIMES = ".times"
# Columns that are multiplied in a pass, of all layers with a technique.
PASS_COLUMNS = "pass_columns"
_TIMES = (0.25, 0.5, 0.75, 1, 2)
# Of a tile's vectors, those that are taken to be multiplied, to fit the hardware to.
REMAINING = "remaining"
_REMAINING = (0.25, 0.35, 0.5, 0.75)
# Of accumulators.
_WIDTHS = (16, 24, 32)


@dataclass(frozen=True, kw_only=True)
class TechniqueSpace(DesignSpace):
    """Every choice of a technique for each group of layers, and of hardware that fits it.

    A group has one categorical parameter, `GROUP.technique`, and its own of what says how much is
    shared, such as `GROUP.lsh.hashes`; what else a technique is set to, such as `lsh.length`, is
    chosen once for all groups that use it. Memories and reuse units are as large
    as tiles need them (`simulator.fitted_design`), buffers so many times that: `BUFFER.times`. A
    design has the units that its techniques run on and no others: where all groups are dense, it
    is a dense design.

    A parameter may also be any other field of a technique's policy, `lsh.order`; the same of one
    group alone, `GROUP.lsh.length`; the capacity of a buffer, `weight_buffer.kib`; or any field of
    the design by its path, `cache.entries`, in place of what would fit.

    Attributes:
        groups: name -> layers.
        techniques: names of `TECHNIQUES`.
        workload: all layers of the trace, which the sizes of memories follow from.
    """

    groups: Mapping[str, tuple[str, ...]] = field(kw_only=True)
    techniques: tuple[str, ...] = field(kw_only=True)
    workload: tuple[Layer, ...] = field(kw_only=True)

    def _type_problems(self) -> list[str]:
        found = super()._type_problems()
        if found:
            return found
        found_techniques(self.techniques)
        if not all_of(self.workload, Layer):
            return [
                f"TechniqueSpace.workload must be a tuple of Layer, got {show(self.workload)}; use "
                "the trace's layers"
            ]
        known, grouped = {each.name for each in self.workload}, [*self._group_of]
        if self.base_policy is None and not self.fronts and {*self.layers} == {*grouped} <= known:
            return []
        return [
            "TechniqueSpace.groups must be of the workload's layers, the same as layers, without "
            f"base_policy or fronts, got {show(self.groups)}; use TechniqueSpace.for_techniques"
        ]

    def _check_base(self) -> None:
        _check_units(self.base, self._techniques)

    @property
    def _techniques(self) -> tuple[Technique, ...]:
        return found_techniques(self.techniques)

    @property
    def _group_of(self) -> dict[str, str]:
        """Layer -> its group."""
        return {layer: name for name, layers in self.groups.items() for layer in layers}

    @classmethod
    def for_techniques(
        cls,
        trace: WorkloadTrace,
        base: Accelerator,
        techniques: Sequence[str],
        *,
        grouping: str = "stage",
        groups: int = 8,
    ) -> TechniqueSpace:
        """The space around a design for the layers where reuse can save most.

        Starts from every group with the first technique, but first layers, which read few
        channels, and convolutions of one tap; from the base design without reuse units;
        and from the fastest dense design of the base design's area. So whatever is searched, the
        front is never below these.

        Args:
            trace: the workload: the shapes of its layers, and how large their sums become, which
                decides how wide accumulators must be.
            base: a design with the units of the techniques.
            techniques: names of `TECHNIQUES`; `dense` is always one.
            grouping: how layers are grouped, see `codesign.space.grouping.groups_of`.
            groups: groups at most; layers of others run dense.

        Raises:
            ConfigError: there is no such technique or grouping, the base lacks units, or no layer
                has rows to share.
        """
        chosen = found_techniques(techniques)
        _check_units(base, chosen)
        if problems := whole()["rule"](groups, "DesignSpace.groups"):
            raise ConfigError(f"{problems[0]}; use 8")
        able = reusable_layers(trace, len(trace.layers))
        found = groups_of(able, grouping, groups)
        layers = tuple(name for each in found.values() for name in each)
        dense, _ = best_dense(trace.layers, base)
        own = [layer for layer in trace.layers if layer.name in layers]
        parameters, start = _parameters(base, chosen, found, own, _widths(trace))
        space = cls(
            base=base,
            layers=layers,
            parameters=tuple(parameters),
            start={"start": start},
            groups=found,
            techniques=tuple(each.name for each in chosen),
            workload=trace.layers,
        )
        return space._with_dense_starts(dense)

    def _with_dense_starts(self, dense: Accelerator) -> TechniqueSpace:
        """The space with the dense designs that are tried first; choices hold the values of both.

        Args:
            dense: the fastest dense design of the base design's area.
        """
        start = self.start["start"]
        plain = {**start, **dict.fromkeys((f"{name}{TECHNIQUE}" for name in self.groups), DENSE)}
        best = plain | {"array.rows": dense.array.rows, "array.columns": dense.array.columns}
        fitted, _ = self.build(best)
        for name in BUFFERS:
            unit = getattr(fitted, name)
            if unit is not None:
                # Both are powers of two, so that this is one too.
                ratio = getattr(dense, name).capacity_bytes / unit.capacity_bytes
                best[f"{name}{TIMES}"] = int(ratio) if ratio >= 1 else ratio
        parameters = tuple(
            replace(p, choices=tuple(sorted({*p.choices, best[p.name]}))) if p.ordered else p
            for p in self.parameters
        )
        starts = {"start": start, "dense": plain, "dense_equal_area": best}
        starts |= {"start_low": self._start_at(1), "start_high": self._start_at(2)}
        return replace(self, parameters=parameters, start=starts)

    def _start_at(self, thirds: int) -> dict[str, Any]:
        """The start with what each group has its own of at so many thirds of its choices."""
        start = dict(self.start["start"])
        own = {
            name
            for technique in self._techniques
            for of in technique.own
            for name in _named(technique, of, self.groups)
        }
        for parameter in self.parameters:
            if parameter.name in own:
                choices = parameter.choices
                start[parameter.name] = choices[(len(choices) - 1) * thirds // 3]
        return start

    def _needed(self) -> list[str]:
        sizes = [f"{name}{TIMES}" for name in BUFFERS if getattr(self.base, name) is not None]
        needed = ["array.rows", "array.columns", "array.fold_timing", "accumulator_bits", *sizes]
        needed += [PASS_COLUMNS, REMAINING]
        for technique in self._techniques:
            needed += [*technique.hardware]
            for name in technique.parameters:
                needed += _named(technique, name, self.groups)
        return [*needed, *(f"{name}{TECHNIQUE}" for name in self.groups)]

    def _possible(self) -> dict[str, Any]:
        found = self._possible_fields()
        for name in BUFFERS:
            if getattr(self.base, name) is not None:
                found[f"{name}.kib"] = -(-getattr(self.base, name).capacity_bytes // KIB)
        for technique in self._techniques:
            usual = _usual_fields(technique)
            found |= {f"{technique.name}.{name}": value for name, value in usual.items()}
            found = {
                name: value
                for name, value in found.items()
                if name not in {f"{technique.name}.{own}" for own in technique.own}
            }
            for group in self.groups:
                found |= {f"{group}.{technique.name}.{name}": v for name, v in usual.items()}
        needed = set(self._needed())
        return {name: value for name, value in found.items() if name not in needed}

    @property
    def searches_policy(self) -> bool:
        """Other fields than the usual may change what is learned of activations."""
        return any(technique is not None for technique, _, _ in map(self._field, self.own_fields))

    def _field(self, name: str) -> tuple[Technique | None, str, str | None]:
        """Technique, field of its policy and group that a parameter is of; none of each."""
        head, _, of = name.rpartition(".")
        for technique in self._techniques:
            if head == technique.name:
                return technique, of, None
            group = head.removesuffix(f".{technique.name}")
            if group != head and group in self.groups:
                return technique, of, group
        return None, name, None

    @property
    def choosing(self) -> tuple[str, ...]:
        """The groups."""
        return tuple(self.groups)

    reuse_heading = "technique"

    def reuse_texts(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Group -> its technique."""
        return {name: values[f"{name}{TECHNIQUE}"] for name in self.groups}

    @property
    def of_decisions(self) -> frozenset[str]:
        """Parameters that decide what is reused; accuracy depends on no others."""
        kinds = {path for technique in self._techniques for path in technique.hardware}
        return frozenset(
            parameter.name
            for parameter in self.parameters
            if parameter.name in kinds
            or parameter.name.endswith(TECHNIQUE)
            or self._field(parameter.name)[0] is not None
        )

    @property
    def conditions(self) -> dict[str, Condition]:
        """Settings of a technique, and hardware for it, have an effect where some group uses it."""
        found: dict[str, Condition] = {}
        by_name = {parameter.name: parameter for parameter in self.parameters}
        for name, parameter in by_name.items():
            technique, _, group = self._field(name)
            users = [technique] if technique else self._users(name)
            if not users:
                continue
            wanted = {each.name for each in users}
            groups = self.groups if group is None else (group,)
            switches = [by_name[f"{each}{TECHNIQUE}"] for each in groups]
            if any({*switch.choices} <= wanted for switch in switches):
                continue  # some group always uses it
            found[name] = Condition(
                on=tuple(switch.name for switch in switches),
                values=tuple(each.name for each in users),
                otherwise=parameter.encode(self._usual(parameter)),
            )
        return found

    def _users(self, name: str) -> list[Technique]:
        """Techniques that a parameter of the hardware is for; none where it is for dense ones."""
        if name in (PASS_COLUMNS, REMAINING):
            return [*self._techniques]
        unit = name.partition(".")[0]
        return [each for each in self._techniques if unit in each.units or name in each.hardware]

    def settled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same design and policy, told in one way only: idle parameters as at the start."""
        settled = dict(values)
        by_name = {parameter.name: parameter for parameter in self.parameters}
        for name, condition in self.conditions.items():
            if not condition.holds(values):
                settled[name] = self._usual(by_name[name])
        return settled

    def policies_of(self, values: Mapping[str, Any]) -> dict[str, ReusePolicy]:
        """Layer -> its policy with these values; layers that run dense are left out.

        Raises:
            ConfigError: a policy refuses them.
        """
        layers = {each.name: each for each in self.workload}
        found: dict[str, ReusePolicy] = {}
        for group, names in self.groups.items():
            for technique in self._techniques:
                if values[f"{group}{TECHNIQUE}"] != technique.name:
                    continue
                settings = self._settings(technique, group, values)
                found |= {name: technique.made(layers[name], settings) for name in names}
        return {name: found[name] for name in layers if name in found}

    def _settings(
        self, technique: Technique, group: str, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Field -> value of a technique in a group; those of the group alone come before all's."""
        of_all: dict[str, Any] = {}
        of_group: dict[str, Any] = {}
        for parameter in self.parameters:
            owner, of, alone = self._field(parameter.name)
            if owner is technique and alone in (None, group):
                (of_all if alone is None else of_group)[of] = values[parameter.name]
        kinds = {path.rpartition(".")[2]: values[path] for path in technique.hardware}
        return {**technique.start, **kinds, **of_all, **of_group}

    def build(self, values: Mapping[str, Any]) -> tuple[Accelerator, ReusePolicy]:
        """The design and the policy with these values.

        Raises:
            ConfigError: these values make no valid design.
        """
        policies = self.policies_of(values)
        used = {values[f"{name}{TECHNIQUE}"] for name in self.groups}
        units = {u for each in self._techniques if each.name in used for u in each.units}
        paths = {p for each in self._techniques if each.name in used for p in each.hardware}
        policy = PerLayer(policies) if policies else NoReuse()
        array = SystolicArray(
            rows=values["array.rows"],
            columns=values["array.columns"],
            dataflow=self.base.array.dataflow,
            fold_timing=values["array.fold_timing"],
        )
        name = f"{self.base.name}_searched" + ("" if policies else "_dense")
        given = {each: self.base.units[each] for each in self.base.units if each in units}
        design = replace(
            self.base.without_reuse(name),
            array=array,
            accumulator_bits=values["accumulator_bits"],
            **given,  # type: ignore[arg-type]
        )
        design = with_fields(design, {path: values[path] for path in paths})
        design = fitted_design(
            design,
            self.workload,
            policy,
            columns=values[PASS_COLUMNS],
            remaining=values[REMAINING],
        )
        return with_fields(design, self._sizes(design, values)), policy

    def _sizes(self, design: Accelerator, values: Mapping[str, Any]) -> dict[str, Any]:
        """Path -> value of what is not as it would fit."""
        found: dict[str, Any] = {}
        for name in BUFFERS:
            unit = getattr(design, name)
            if unit is not None:
                times = values[f"{name}{TIMES}"]
                found[f"{name}.capacity_bytes"] = max(
                    least_bytes(design, name), int(times * unit.capacity_bytes)
                )
        for name in self.own_fields:
            if self._field(name)[0] is None:
                buffer, _, of = name.rpartition(".")
                is_kib = of == "kib" and buffer in BUFFERS
                path = f"{buffer}.capacity_bytes" if is_kib else name
                found[path] = values[name] * KIB if is_kib else values[name]
        return found

    def to_dict(self) -> dict[str, Any]:
        """The space as plain values, to be stored with a study."""
        return super().to_dict() | {
            "groups": {name: list(layers) for name, layers in self.groups.items()},
            "techniques": list(self.techniques),
            "workload": [layer.to_dict() for layer in self.workload],
        }

    @classmethod
    def _of_description(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        groups = description["groups"].items()
        return super()._of_description(description) | {
            "groups": {name: tuple(layers) for name, layers in groups},
            "techniques": tuple(description["techniques"]),
            "workload": tuple(map(Layer.from_dict, description["workload"])),
        }


def _widths(trace: WorkloadTrace) -> tuple[int, ...]:
    """Of accumulators, those that hold every partial sum of the trace; of one without tensors,
    those that hold any."""
    try:
        bits = bits_of_sums(trace, beyond=min(_WIDTHS))
    except TraceError:
        bits = {layer.name: most_bits(layer) for layer in trace.layers}
    return tuple(width for width in _WIDTHS if width >= max(bits.values())) or _WIDTHS[-1:]


def _check_units(base: Accelerator, techniques: Sequence[Technique]) -> None:
    """A design must have the units of every technique."""
    check_design(base)
    for technique in techniques:
        missing = [name for name in technique.units if name not in base.units]
        if missing:
            raise ConfigError(
                f"DesignSpace.base must have the units of technique {technique.name!r}, got "
                f"{base.name!r} without {', '.join(missing)}; add them, use a preset that has "
                "them, or leave the technique out"
            )


def _usual_fields(technique: Technique) -> dict[str, Any]:
    """Field of its policy -> its value where nobody searches it."""
    needed = {name: choices[0] for name, choices in technique.parameters.items()}
    made = technique.policy(**{**needed, **technique.start})
    kinds = {path.rpartition(".")[2] for path in technique.hardware}
    return {name: getattr(made, name) for name in technique.fields if name not in kinds}


def _named(technique: Technique, of: str, groups: Iterable[str]) -> list[str]:
    """The parameters that a setting of a technique is chosen by: one, or one a group."""
    name = f"{technique.name}.{of}"
    return [f"{group}.{name}" for group in groups] if of in technique.own else [name]


def _parameters(
    base: Accelerator,
    techniques: Sequence[Technique],
    groups: Mapping[str, tuple[str, ...]],
    layers: Sequence[Layer],
    widths: tuple[int, ...],
) -> tuple[list[Parameter], dict[str, Any]]:
    """What is chosen, and the values of the first start."""
    start: dict[str, Any] = {
        "array.rows": base.array.rows,
        "array.columns": base.array.columns,
        "array.fold_timing": base.array.fold_timing,
        "accumulator_bits": base.accumulator_bits,
        PASS_COLUMNS: base.array.columns,
        REMAINING: _REMAINING[1],
    }
    choices: dict[str, tuple[Any, ...]] = {
        **ARRAY_SIZES,
        "accumulator_bits": widths,
        PASS_COLUMNS: (8, 16, 32, 64, 128),
        REMAINING: _REMAINING,
    }
    sizes = [f"{name}{TIMES}" for name in BUFFERS if getattr(base, name) is not None]
    choices |= dict.fromkeys(sizes, _TIMES)
    start |= dict.fromkeys(sizes, 1)
    longest = max(layer.gemm.k for layer in layers)
    for technique in techniques:
        for of, values in technique.parameters.items():
            kept = values
            if of == "length":
                kept = tuple(value for value in values if value <= longest) or (longest,)
            for name in _named(technique, of, groups):
                choices[name] = kept
                start[name] = Parameter.of(name, kept).nearest(technique.start[of])
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
    kinds = (DENSE, *(each.name for each in techniques))
    # Looking costs as much at one tap as at nine, and saves a ninth.
    of_few = {layer.name for layer in layers if has_few_channels(layer) or has_one_tap(layer)}
    for group, names in groups.items():
        name = f"{group}{TECHNIQUE}"
        parameters.append(Parameter(name=name, choices=kinds, ordered=False))
        start[name] = DENSE if {*names} <= of_few else kinds[1]
    if all(start[f"{group}{TECHNIQUE}"] == DENSE for group in groups):
        start |= {f"{group}{TECHNIQUE}": kinds[1] for group in groups}
    return parameters, start
