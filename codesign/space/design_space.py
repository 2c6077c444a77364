"""The design space: parameters of the hardware, and of the reuse of each layer searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from accelerators import Accelerator, ConfigError
from codesign.space.building import dense_design, reuse_design
from codesign.space.checks import all_of, check_base, is_table, whole
from codesign.space.fields import field_types, field_value, with_fields
from codesign.space.named import name_problems, start_problems
from codesign.space.narrowing import with_choices
from codesign.space.parameters import (
    Condition,
    Parameter,
    ParameterSpace,
    hardware_parameters,
    hardware_values,
    reusable_layers,
)
from codesign.space.starting import (
    nearest_start,
    space_of_positions,
    tell_moved,
    usual_space,
)
from codesign.space.template import StoredPolicy, changed, field_values, stored
from simulator import LshReuse, NoReuse, PerLayer, ReusePolicy
from simulator.timing.dense_baseline import best_dense
from workloads.errors import show, told
from workloads.traces.trace import WorkloadTrace

# Of a layer's parameters, those that need its reuse.
_OF_REUSE = ("hashes", "length")
# Begins a parameter that is a field of the policy.
POLICY = "policy."


@dataclass(frozen=True, kw_only=True)
class DesignSpace(ParameterSpace):
    """Every design and policy that a search may try.

    Attributes:
        base: the design that is varied; what no parameter names stays as it is here.
        layers: layers whose reuse is searched; all others run dense.
        parameters: what is chosen.
        start: settings tried first, by the name they have in a report.
        fronts: layer -> settings of its reuse, from the most exact to the most compressed, where
            the search chooses a position among them and nothing else of the layer; see
            `from_fronts`.
        base_policy: decides in every layer, with the fields that parameters name replaced; then
            there are no `layers`. `None` hashes in the layers, each with its own settings.

    A parameter may also be any field of the design, by its path: `dram.bandwidth_bytes_per_cycle`;
    or of the policy: `policy.thresholds`.
    """

    base: Accelerator
    layers: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    start: Mapping[str, Mapping[str, Any]]
    fronts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    base_policy: ReusePolicy | None = None

    def __post_init__(self) -> None:
        """Each field is what it is called; `build` uses each parameter, and has all it needs."""
        if problems := self._type_problems() or self._name_problems():
            raise ConfigError(problems)

    def _type_problems(self) -> list[str]:
        """Fields that are not what they are called."""
        start, fronts = self.start, self.fronts
        rules = {
            "base": (isinstance(self.base, Accelerator), "an Accelerator such as a preset"),
            "layers": (all_of(self.layers, str), "a tuple of layer names"),
            "parameters": (all_of(self.parameters, Parameter), "a tuple of Parameter"),
            "start": (
                is_table(start) and all(is_table(values) for values in start.values()),
                "origins with a value for each parameter, as {'start': {'array.rows': 16}}",
            ),
            "fronts": (
                is_table(fronts) and all(all_of(settings, Mapping) for settings in fronts.values()),
                "layers with a list of settings of LshReuse each",
            ),
            "base_policy": (
                self.base_policy is None or isinstance(self.base_policy, ReusePolicy),
                "a policy or None",
            ),
        }
        return [
            f"DesignSpace.{name} must be {rule}, got {show(getattr(self, name))}; use "
            "DesignSpace.for_workload(trace, base)"
            for name, (right, rule) in rules.items()
            if not right
        ]

    def _name_problems(self) -> list[str]:
        """Parameters without effect, missing ones, and starts that are of others."""
        self._check_base()
        if self.base_policy is not None and self.layers:
            return [
                f"DesignSpace.layers must be none with base_policy, got {show(self.layers)}; a "
                "policy decides for itself which layers reuse"
            ]
        given = [parameter.name for parameter in self.parameters]
        return [
            *name_problems(given, self._needed(), self._possible()),
            *start_problems(self.start, given),
        ]

    def _check_base(self) -> None:
        check_base(self.base, for_policy=self.base_policy is not None)

    def _needed(self) -> list[str]:
        """Parameters without which there is no design."""
        needed = list(hardware_values(self.base))
        for layer in self.layers:
            settings = ("position",) if layer in self.fronts else ("reuse", *_OF_REUSE)
            needed += [f"{layer}.{setting}" for setting in settings]
        return needed

    def _possible(self) -> dict[str, Any]:
        """Field of the design or the policy that a parameter may be too -> its own value."""
        policy = self.base_policy or LshReuse(hashes=1, length=1)
        chosen = () if self.base_policy else (*_OF_REUSE, "projection")
        return self._possible_fields() | {
            f"{POLICY}{name}": value
            for name, value in field_values(policy).items()
            if name not in chosen
        }

    def _possible_fields(self) -> dict[str, Any]:
        """Field of the design -> its own value."""
        paths = (path for path in field_types(self.base) if path != "name")
        return {path: field_value(self.base, path) for path in paths}

    @property
    def least_accumulator_bits(self) -> int:
        """The narrowest partial sums of any design."""
        choices = [p.choices for p in self.parameters if p.name == "accumulator_bits"]
        return min(self.base.accumulator_bits, *(each for some in choices for each in some), 64)

    @property
    def own_fields(self) -> tuple[str, ...]:
        """Parameters that are fields of the design or the policy and of no usual search."""
        needed = set(self._needed())
        return tuple(each.name for each in self.parameters if each.name not in needed)

    @property
    def searches_policy(self) -> bool:
        """Whether what a policy learns of activations may be another in each trial."""
        return self.base_policy is not None or any(map(_is_policy, self.own_fields))

    @classmethod
    def for_policy(cls, policy: ReusePolicy, base: Accelerator) -> DesignSpace:
        """The space of hardware around a design under a policy, such as one of your own.

        Fields of the policy are searched where `narrowed` gives them choices:
        `{"policy.length": (4, 8)}`. What is searched of it must be told by its `describe`. It
        decides in every layer, so that no design of the space is dense.

        Args:
            policy: a dataclass, if fields of it are to be searched.
            base: a design with the units that the policy asks for. Front-end, cache, centroid
                buffer and reconstructor are varied where it has them all.

        Raises:
            ConfigError: the base is no design.
        """
        check_base(base, for_policy=True)
        return cls(
            base=base,
            layers=(),
            parameters=tuple(hardware_parameters(base)),
            start={"start": hardware_values(base)},
            base_policy=policy,
        )

    @classmethod
    def for_workload(cls, trace: WorkloadTrace, base: Accelerator, *, top: int = 4) -> DesignSpace:
        """The space around a design for the layers where reuse can save most.

        Layers are those in which an image has more than one row to share results among, and of
        these the `top` ones with the most multiply-accumulates. The base design's own values join
        the choices, so that it lies in the space; the search starts from it with the settings of
        Deep Reuse (those of CifarNet where the layers have its names and shapes). Then the fastest
        dense design of its area is tried, so that no search ends worse than that.

        Args:
            trace: the workload; only the shapes of its layers are looked at.
            base: a design with reuse units.
            top: how many layers, at least 1.

        Raises:
            ConfigError: the base has no reuse units, or no layer has rows to share.
        """
        check_base(base)
        if problems := whole()["rule"](top, "DesignSpace.top"):
            raise ConfigError(f"{problems[0]}; use 4")
        layers = reusable_layers(trace, top)
        dense, _ = best_dense(trace.layers, base)
        parameters, start = usual_space(layers, base, dense)
        return cls(
            base=base,
            layers=tuple(layer.name for layer in layers),
            parameters=parameters,
            start=start,
        )

    @classmethod
    def from_fronts(
        cls, trace: WorkloadTrace, base: Accelerator, fronts: Mapping[str, Sequence[Mapping]]
    ) -> DesignSpace:
        """The space of hardware together with a position on the front of each layer.

        A layer has one ordinal parameter, `LAYER.position`: 0 is dense, 1 the most exact setting of
        its front, the last the most compressed. The search starts from the base design in the
        middle of every front; then the fastest dense design of its area is tried. Hyperplanes are
        of the kind that the front-end has; where it is not the one that a front was found with, the
        front's order is a guide only.

        Args:
            trace: the workload.
            base: a design with reuse units.
            fronts: layer -> settings of `LshReuse` but the projection, see `NestedResult.fronts`.

        Raises:
            ConfigError: the base has no reuse units, or a front is empty or of no layer.
        """
        check_base(base)
        layers = [layer for layer in trace.layers if fronts.get(layer.name)]
        broken = sorted(set(fronts) - {layer.name for layer in layers})
        if broken or not layers:
            raise ConfigError(
                "DesignSpace.from_fronts fronts must be of layers of the workload and hold a "
                f"setting each, got {', '.join(broken) or 'none'}; give NestedResult.fronts of a "
                "search on this workload"
            )
        sizes = {layer.name: len(fronts[layer.name]) for layer in layers}
        dense, _ = best_dense(trace.layers, base)
        parameters, start = space_of_positions(sizes, base, dense)
        return cls(
            base=base,
            layers=tuple(sizes),
            parameters=parameters,
            start=start,
            fronts={layer.name: tuple(fronts[layer.name]) for layer in layers},
        )

    def reuse_of(self, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Layer -> settings of `LshReuse` with these values; layers that run dense are left out."""
        chosen: dict[str, dict[str, Any]] = {}
        for name in self.layers:
            if name in self.fronts:
                position = values[f"{name}.position"]
                if position:
                    chosen[name] = dict(self.fronts[name][position - 1])
            elif values[f"{name}.reuse"]:
                chosen[name] = {key: values[f"{name}.{key}"] for key in ("hashes", "length")}
        return chosen

    @property
    def conditions(self) -> dict[str, Condition]:
        """Name -> when that parameter has an effect; others always have. See `settled`."""
        found = {}
        for parameter in self.parameters:
            layer, _, of = parameter.name.rpartition(".")
            if of in _OF_REUSE and layer in self.layers and layer not in self.fronts:
                otherwise = parameter.encode(self._usual(parameter))
                found[parameter.name] = Condition(
                    on=(f"{layer}.reuse",), values=(True,), otherwise=otherwise
                )
        return found

    def is_idle(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether a parameter has no effect with these values."""
        condition = self.conditions.get(name)
        return condition is not None and not condition.holds(values)

    @property
    def choosing(self) -> tuple[str, ...]:
        """What reuses or not: the layers."""
        return self.layers

    reuse_heading: ClassVar[str] = "hashes/length"

    def reuse_texts(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Layer -> `H/L`, hashes and length of its sub-vectors, or `dense`."""
        chosen = self.reuse_of(values)
        return {
            layer: f"{chosen[layer]['hashes']}/{chosen[layer]['length']}"
            if layer in chosen
            else "dense"
            for layer in self.layers
        }

    @property
    def of_decisions(self) -> frozenset[str]:
        """Parameters that decide which rows share a result; accuracy depends on no others."""
        return frozenset(
            parameter.name
            for parameter in self.parameters
            if parameter.name == "front_end.projection"
            or (parameter.name in self.own_fields and parameter.name.startswith(POLICY))
            or parameter.name.rpartition(".")[0] in self.layers
        )

    def _usual(self, parameter: Parameter) -> Any:
        """The start's value, or the first choice."""
        usual = next(iter(self.start.values()), {}).get(parameter.name)
        return usual if usual in parameter.choices else parameter.choices[0]

    def settled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same design and policy, told in one way only.

        Hashes and length of a layer that runs dense have no effect: they take the start's value, or
        the first choice.
        """
        reused = self.reuse_of(values)
        idle = {f"{name}.{of}" for name in self.layers if name not in reused for of in _OF_REUSE}
        settled = dict(values)
        for parameter in self.parameters:
            if parameter.name in idle:
                settled[parameter.name] = self._usual(parameter)
        return settled

    def narrowed(self, choices: Mapping[str, Sequence[Any]]) -> DesignSpace:
        """The space with other choices for some parameters, and with parameters of your own.

        A start that is not among them goes to the nearest ones, which is told by a warning.

        Args:
            choices: parameter -> its values, from small to large where it is ordered. Others than
                the space's own are taken too for an ordered one, but for a position on a front;
                what no design can have makes infeasible trials. A field of the design
                (`dram.bandwidth_bytes_per_cycle`) or of the policy (`policy.thresholds`) becomes
                a parameter, after the others.

        Raises:
            ConfigError: there is no such parameter or field, or it cannot have these values.
        """
        possible = self._possible()
        positions = {f"{name}.position" for name in self.fronts}
        parameters = with_choices(self.parameters, choices, possible, fixed=positions)
        given = {name: {**possible, **start} for name, start in self.start.items()}
        found = replace(self, parameters=parameters, start=nearest_start(given, parameters))
        for (origin, before), now in zip(given.items(), found.start.values(), strict=True):
            tell_moved(origin, before, now, (n for n in now if not found.is_idle(n, now)))
        return found

    def build(self, values: Mapping[str, Any]) -> tuple[Accelerator, ReusePolicy]:
        """The design and the policy with these values.

        What the search does not choose follows from what it does, see `codesign.space.building`.
        Where every layer runs dense, the reuse units are left out, and their own fields too.

        Args:
            values: parameter name -> value.

        Raises:
            ConfigError: these values make no valid design.
        """
        own = {name: values[name] for name in self.own_fields}
        changes = {name.removeprefix(POLICY): own.pop(name) for name in [*own] if _is_policy(name)}
        chosen = values.get("front_end.projection")
        hashing = {} if chosen is None else {"projection": chosen}
        policies: dict[str, ReusePolicy] = {}
        if self.base_policy is not None:
            known = field_values(self.base_policy)
            hashing = {name: value for name, value in hashing.items() if name in known}
            policies = {"": changed(self.base_policy, hashing | changes)}
        for name, settings in self.reuse_of(values).items():
            policies[name] = LshReuse(**(hashing | settings | changes))
        build = partial(reuse_design, policies=policies.values()) if policies else dense_design
        design = build(self.base, values)
        if own:
            design = with_fields(design, own)
        if self.base_policy is not None:
            return design, policies[""]
        return design, PerLayer(policies) if policies else NoReuse()

    def to_dict(self) -> dict[str, Any]:
        """The space as plain values, to be stored with a study."""
        description = {
            "base": self.base.to_dict(),
            "layers": list(self.layers),
            "parameters": [parameter.to_dict() for parameter in self.parameters],
            "start": {name: dict(values) for name, values in self.start.items()},
        }
        if self.fronts:
            description["fronts"] = {name: list(each) for name, each in self.fronts.items()}
        if self.base_policy is not None:
            description["policy"] = stored(self.base_policy)
        return description

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> DesignSpace:
        """The space that `to_dict` described.

        Raises:
            ConfigError: it lacks a part, or a part breaks a rule.
        """
        if not is_table(description):
            raise ConfigError(
                f"DesignSpace must be described by a mapping, got {show(description)}; use the "
                "result of to_dict()"
            )
        try:
            return cls(**cls._of_description(description))
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                "DesignSpace must be described as to_dict() does it, got "
                f"{show(description)} ({told(error)}); use the result of to_dict()"
            ) from error

    @classmethod
    def _of_description(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        """Field -> value."""
        policy = description.get("policy")
        return {
            "base": Accelerator.from_dict(description["base"]),
            "layers": tuple(description["layers"]),
            "parameters": tuple(map(Parameter.from_dict, description["parameters"])),
            "start": description["start"],
            "fronts": {name: tuple(each) for name, each in description.get("fronts", {}).items()},
            "base_policy": None if policy is None else StoredPolicy(**policy),
        }


def _is_policy(name: str) -> bool:
    return name.startswith(POLICY)
