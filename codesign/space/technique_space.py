"""The space of a technique for each group of layers, on hardware that fits what is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from accelerators import Accelerator, ConfigError, SystolicArray
from codesign.space.allotment import (
    OUTPUT_ERROR,
    START_ERROR,
    Allotment,
    allotment_problems,
    asked_errors,
)
from codesign.space.checks import all_of, whole
from codesign.space.design_space import DesignSpace
from codesign.space.fields import with_fields
from codesign.space.grouping import groups_of
from codesign.space.parameters import (
    BUFFERS,
    KIB,
    Condition,
    reusable_layers,
)
from codesign.space.technique_parameters import (
    PASS_COLUMNS,
    REMAINING,
    TECHNIQUE,
    TIMES,
    USED,
    check_units,
    fitting_widths,
    names_of,
    options_in,
    usual_fields,
    usual_parameters,
)
from codesign.space.techniques import (
    DENSE,
    NETWORK,
    SHARING,
    chained,
    dials,
    found_techniques,
    is_above,
    made,
    members,
    of_network,
)
from simulator import NoReuse, PerLayer, ReusePolicy, Technique, Together, fitted_design
from simulator.timing.dense_baseline import best_dense
from simulator.timing.fitting import least_bytes
from workloads.errors import show
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace


@dataclass(frozen=True, kw_only=True)
class TechniqueSpace(DesignSpace):
    """Every choice of a technique for each group of layers, and of hardware that fits it.

    A group has one categorical parameter, `GROUP.technique`, and its own of what says how much is
    shared, its dial, such as `GROUP.lsh.hashes`; what else a technique is set to, such as
    `lsh.length`, is chosen once for all groups that use it. Where it was measured what groups bear
    (`codesign.evaluation.allotting`), one parameter sets all dials: `output_error`. Given before,
    its choices are the errors that dials are allotted for.
    Memories and reuse units are as large as tiles need them (`simulator.fitted_design`), buffers so
    many times that: `BUFFER.times`. A
    design has the units that its techniques run on and no others: where all groups are dense, it
    is a dense design.

    A parameter may also be any other field of a technique's policy, `lsh.order`; the same of one
    group alone, `GROUP.lsh.length`; the capacity of a buffer, `weight_buffer.kib`; or any field of
    the design by its path, `cache.entries`, in place of what would fit.

    Attributes:
        groups: name -> layers.
        techniques: names of the catalogue, `simulator.techniques()`, for a group of layers to
            choose, or several with `+` between them, each on what those before it leave; those of
            frames and tokens are chosen for the network, `network.technique`.
        workload: all layers of the trace, which the sizes of memories follow from.
        allotment: what dials are set to, by the error that is borne; `None` where each is chosen.
    """

    groups: Mapping[str, tuple[str, ...]] = field(kw_only=True)
    techniques: tuple[str, ...] = field(kw_only=True)
    workload: tuple[Layer, ...] = field(kw_only=True)
    allotment: Allotment | None = None

    def _type_problems(self) -> list[str]:
        found = super()._type_problems()
        if found:
            return found
        found_techniques(self.techniques)
        if not isinstance(self.allotment, Allotment | None):
            return [
                f"TechniqueSpace.allotment must be an Allotment or None, got "
                f"{show(self.allotment)}; use codesign.evaluation.allotting.with_dials_allotted"
            ]
        if not all_of(self.workload, Layer):
            return [
                f"TechniqueSpace.workload must be a tuple of Layer, got {show(self.workload)}; use "
                "the trace's layers"
            ]
        known, grouped = {each.name for each in self.workload}, [*self._group_of]
        if self.base_policy is None and not self.fronts and {*self.layers} == {*grouped} <= known:
            return allotment_problems(self.parameters, [*self.dials], self.allotment)
        return [
            "TechniqueSpace.groups must be of the workload's layers, the same as layers, without "
            f"base_policy or fronts, got {show(self.groups)}; use TechniqueSpace.for_techniques"
        ]

    def _check_base(self) -> None:
        check_units(self.base, self.chosen_techniques)

    @property
    def chosen_techniques(self) -> tuple[Technique, ...]:
        """The techniques, without none at all."""
        return found_techniques(self.techniques)

    @property
    def asked_errors(self) -> tuple[float, ...] | None:
        """Errors to allot dials for; `None` for the usual ones, and once they are allotted."""
        return None if self.allotment is not None else asked_errors(self.parameters)

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

        Starts from every group with the first technique, but first layers, which read few channels,
        and convolutions of one tap; from the base design without reuse units; and from the fastest
        dense design of the base's dataflow that is as large as the first start, which has the units
        of one technique alone and memories that fit; the same with the techniques, where any of
        them does not share rows in tiles. So whatever is searched, the front is never below these.
        A search with a model then measures what groups bear, and one parameter takes the place of
        the dials, see `codesign.evaluation.allotting`.

        Args:
            trace: the workload: the shapes of its layers, and how large their sums become, which
                decides how wide accumulators must be.
            base: a design with the units of the techniques.
            techniques: as the attribute; `dense` is always one.
            grouping: how layers are grouped, see `codesign.space.grouping.groups_of`.
            groups: groups at most; layers of others run dense.

        Raises:
            ConfigError: there is no such technique or grouping, the base lacks units, or no layer
                has rows to share.
        """
        chosen = found_techniques(techniques)
        check_units(base, chosen)
        if problems := whole()["rule"](groups, "DesignSpace.groups"):
            raise ConfigError(f"{problems[0]}; use 8")
        able = reusable_layers(trace, len(trace.layers))
        found = groups_of(able, grouping, groups)
        layers = tuple(name for each in found.values() for name in each)
        own = [layer for layer in trace.layers if layer.name in layers]
        names = tuple(name for name in techniques if name != DENSE)
        parameters, start = usual_parameters(base, names, found, own, fitting_widths(trace))
        space = cls(
            base=base,
            layers=layers,
            parameters=tuple(parameters),
            start={"start": start},
            groups=found,
            techniques=names,
            workload=trace.layers,
        )
        return space._with_dense_starts()

    def narrowed(self, choices: Mapping[str, Sequence[Any]]) -> TechniqueSpace:
        """See `DesignSpace.narrowed`; the dial of a technique without a group,
        `leaders.tolerance`, stands for those of all groups.

        Raises:
            ConfigError: as there.
        """
        of_all = {
            f"{technique.name}.{of}": names_of(technique, of, self.groups)
            for technique in self.chosen_techniques
            for of in dials(technique)
        }
        given = {each: own for name, own in choices.items() for each in of_all.get(name, (name,))}
        found = super().narrowed(given)
        assert isinstance(found, TechniqueSpace)
        return found

    def _with_dense_starts(self) -> TechniqueSpace:
        """The space with the dense designs that are tried first; choices hold the values of both.

        A base has the units of every technique, and memories of its own: the design that it becomes
        at the start is what a dense design is to be as large as.
        """
        start = self.start["start"]
        started, _ = self.build(start)
        # No parameter changes the dataflow.
        dense, _ = best_dense(self.workload, started, dataflows=(started.array.dataflow,))
        own = {"array.fold_timing": self.base.array.fold_timing}
        plain = {
            **start,
            **own,
            **dict.fromkeys(self.switches, DENSE),
        }
        shape = ("rows", "columns", "fold_timing")
        best = plain | {f"array.{name}": getattr(dense.array, name) for name in shape}
        once, _ = self.build(best | {name: 1 for name in best if name.endswith(TIMES)})
        for name in BUFFERS:
            unit = getattr(once, name)
            if unit is not None:
                # Both are powers of two, so that this is one too.
                ratio = getattr(dense, name).capacity_bytes / unit.capacity_bytes
                best[f"{name}{TIMES}"] = int(ratio) if ratio >= 1 else ratio
        parameters = tuple(
            replace(p, choices=tuple(sorted({*p.choices, best[p.name]}))) if p.ordered else p
            for p in self.parameters
        )
        starts = {"start": start, "dense": plain, "dense_equal_area": best}
        if any(each.name not in SHARING for each in self.chosen_techniques):
            # What takes whole rows, columns or frames off wants the array that dense wants.
            starts["on_dense"] = best | {name: start[name] for name in self.switches}
        return replace(self, parameters=parameters, start=starts)

    def _needed(self) -> list[str]:
        sizes = [f"{name}{TIMES}" for name in BUFFERS if getattr(self.base, name) is not None]
        needed = ["array.rows", "array.columns", "array.fold_timing", "accumulator_bits", *sizes]
        needed += [PASS_COLUMNS, REMAINING]
        for technique in self.chosen_techniques:
            needed += [*technique.hardware]
            for name in technique.choices:
                if self.allotment is None or name not in dials(technique):
                    needed += names_of(technique, name, self.groups)
        if self.allotment is not None or self.asked_errors is not None:
            needed.append(OUTPUT_ERROR)
        options = options_in(self.base, self.chosen_techniques)
        return [*needed, *(f"{unit}{USED}" for unit in options), *self.switches]

    def _possible(self) -> dict[str, Any]:
        found = {**self._possible_fields(), OUTPUT_ERROR: START_ERROR}
        for name in BUFFERS:
            if getattr(self.base, name) is not None:
                found[f"{name}.kib"] = -(-getattr(self.base, name).capacity_bytes // KIB)
        for technique in self.chosen_techniques:
            usual = usual_fields(technique)
            found |= {f"{technique.name}.{name}": value for name, value in usual.items()}
            found = {
                name: value
                for name, value in found.items()
                if name not in {f"{technique.name}.{own}" for own in dials(technique)}
            }
            for group in () if is_above(technique) else self.groups:
                found |= {f"{group}.{technique.name}.{name}": v for name, v in usual.items()}
        needed = set(self._needed())
        return {name: value for name, value in found.items() if name not in needed}

    @property
    def searches_policy(self) -> bool:
        """Other fields than the usual may change what is learned of activations; and techniques
        beside those that share rows in tiles each learn something of their own."""
        others = any(each.name not in SHARING for each in self.chosen_techniques)
        return others or any(self._field(name)[0] is not None for name in self.own_fields)

    def _field(self, name: str) -> tuple[Technique | None, str, str | None]:
        """Technique, field of its policy and group that a parameter is of; none of each."""
        head, _, of = name.rpartition(".")
        for technique in self.chosen_techniques:
            if head == technique.name:
                return technique, of, None
            group = head.removesuffix(f".{technique.name}")
            if group != head and group in self.groups:
                return technique, of, group
        return None, name, None

    @property
    def choosing(self) -> tuple[str, ...]:
        """The groups, and the network where there is anything to choose for it."""
        above = (NETWORK,) if any(map(is_above, self.chosen_techniques)) else ()
        return (*above, *self.groups)

    @property
    def switches(self) -> tuple[str, ...]:
        """Parameters that choose a technique."""
        return tuple(f"{name}{TECHNIQUE}" for name in self.choosing)

    def techniques_in(self, values: Mapping[str, Any]) -> set[str]:
        """Names of the techniques that any group, or the network, has with these values."""
        return {each for switch in self.switches for each in members(values[switch])}

    reuse_heading = "technique"

    def reuse_texts(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Group -> its techniques, each with its dial."""
        settings = self.dials_of(values)
        found = {}
        for group in self.choosing:
            texts = []
            for name in members(values[f"{group}{TECHNIQUE}"]):
                own = (f"{settings[d]:g}" for d in settings if d.startswith(f"{group}.{name}."))
                texts.append(" ".join([name, *own]))
            found[group] = " + ".join(texts) or DENSE
        return found

    @property
    def dials(self) -> dict[str, Technique]:
        """Name of a dial, each group's own of a technique -> that technique."""
        return {
            dial: technique
            for technique in self.chosen_techniques
            for of in dials(technique)
            for dial in names_of(technique, of, self.groups)
        }

    def dials_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Dial -> its value with these values; what is chosen of one comes before what is
        allotted."""
        allotted = {} if self.allotment is None else self.allotment.at(values[OUTPUT_ERROR])
        return {**allotted, **{dial: values[dial] for dial in self.dials if dial in values}}

    def following(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What is allotted: dial -> its value, `None` where its group has another technique."""
        if self.allotment is None:
            return {}
        allotted = self.allotment.at(values[OUTPUT_ERROR])
        used = [
            f"{group}.{name}"
            for group in self.groups
            for name in members(values[f"{group}{TECHNIQUE}"])
        ]
        return {
            dial: value if dial.rpartition(".")[0] in used else None
            for dial, value in allotted.items()
            if dial not in values
        }

    @property
    def of_decisions(self) -> frozenset[str]:
        """Parameters that decide what is reused; accuracy depends on no others."""
        kinds = {path for technique in self.chosen_techniques for path in technique.hardware}
        return frozenset(
            parameter.name
            for parameter in self.parameters
            if parameter.name in kinds
            or parameter.name.endswith(TECHNIQUE)
            or parameter.name == OUTPUT_ERROR
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
            groups = self.choosing if group is None else (group,)
            switches = [by_name[f"{each}{TECHNIQUE}"] for each in groups]
            using = {
                choice
                for switch in switches
                for choice in switch.choices
                if wanted & {*members(choice)}
            }
            switches = [switch for switch in switches if using & {*switch.choices}]
            if any({*switch.choices} <= using for switch in switches):
                continue  # some group always uses it
            found[name] = Condition(
                on=tuple(switch.name for switch in switches),
                values=tuple(sorted(using)),
                otherwise=parameter.encode(self._usual(parameter)),
            )
        return found

    def _users(self, name: str) -> list[Technique]:
        """Techniques that a parameter of the hardware is for; none where it is for dense ones."""
        if name in (PASS_COLUMNS, REMAINING, OUTPUT_ERROR):
            return [*self.chosen_techniques]
        unit = name.partition(".")[0]
        return [
            each
            for each in self.chosen_techniques
            if unit in (*each.units, *each.options) or name in each.hardware
        ]

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
        by_name = {each.name: each for each in self.chosen_techniques}
        for group, names in self.groups.items():
            own = [by_name[each] for each in members(values[f"{group}{TECHNIQUE}"])]
            settings = [self._settings(each, group, values) for each in own]
            for name in names if own else ():
                each = [made(t, layers[name], s) for t, s in zip(own, settings, strict=True)]
                policy = chained(each)
                if _fits(policy, layers[name]):
                    found[name] = policy
        return {name: found[name] for name in layers if name in found}

    def _above(self, values: Mapping[str, Any]) -> ReusePolicy | None:
        """What is decided above the layers; `None` for nothing."""
        for technique in filter(is_above, self.chosen_techniques):
            if values[f"{NETWORK}{TECHNIQUE}"] == technique.name:
                return of_network(technique, self._settings(technique, NETWORK, values))
        return None

    def _settings(
        self, technique: Technique, group: str, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Field -> value of a technique in a group; those of the group alone come before all's."""
        of_all: dict[str, Any] = {}
        of_group: dict[str, Any] = {}
        chosen = self.dials_of(values)
        for of in dials(technique):
            (dial,) = names_of(technique, of, (group,))
            of_group[of] = chosen[dial]
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
        policies, above = self.policies_of(values), self._above(values)
        used = self.techniques_in(values)
        own = [each for each in self.chosen_techniques if each.name in used]
        units = {unit for each in own for unit in each.units}
        units |= {unit for unit in options_in(self.base, own) if values[f"{unit}{USED}"]}
        paths = {path for each in own for path in each.hardware}
        policy: ReusePolicy = PerLayer(policies) if policies else NoReuse()
        array = SystolicArray(
            rows=values["array.rows"],
            columns=values["array.columns"],
            dataflow=self.base.array.dataflow,
            fold_timing=values["array.fold_timing"],
        )
        name = f"{self.base.name}_searched" + ("" if used else "_dense")
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
        if above is not None:
            policy = Together(above, policy)
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
            "allotment": None if self.allotment is None else self.allotment.to_dict(),
        }

    @classmethod
    def _of_description(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        groups, allotted = description["groups"].items(), description.get("allotment")
        return super()._of_description(description) | {
            "groups": {name: tuple(layers) for name, layers in groups},
            "techniques": tuple(description["techniques"]),
            "workload": tuple(map(Layer.from_dict, description["workload"])),
            "allotment": None if allotted is None else Allotment.from_dict(allotted),
        }


def _fits(policy: ReusePolicy, layer: Layer) -> bool:
    """Whether a policy can decide on a layer; one of convolutions alone leaves others dense."""
    try:
        policy.check_layers([layer])
    except ConfigError:
        return False
    return policy.applies_to(layer)
