"""The design space: parameters of the hardware, and of the reuse of each layer searched."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.distributions import BaseDistribution

from accelerators import (
    Accelerator,
    ConfigError,
    Reconstructor,
    SramBuffer,
)
from codesign.space.parameters import (
    KIB,
    Condition,
    Parameter,
    hardware_parameters,
    hardware_values,
    layer_parameters,
    reusable_layers,
)
from simulator import LshReuse, NoReuse, PerLayer, ReusePolicy
from workloads.errors import show, told
from workloads.traces.trace import WorkloadTrace

# Deep Reuse's settings of CifarNet (Ning, Guan and Shen, ICDE 2019, Table II): layer -> (H, L).
PAPER_CIFARNET = {"conv1": (15, 5), "conv2": (10, 10)}
# Where a layer has no setting from the paper: that of CifarNet's conv2.
PAPER_DEFAULT = (10, 10)
# Of a layer's parameters, those that need its reuse.
_OF_REUSE = ("hashes", "length")


@dataclass(frozen=True, kw_only=True)
class DesignSpace:
    """Every design and policy that a search may try.

    Attributes:
        base: the design that is varied; what no parameter names stays as it is here.
        layers: layers whose reuse is searched; all others run dense.
        parameters: what is chosen.
        start: settings tried first, by the name they have in a report.
        fronts: layer -> settings of its reuse, from the most exact to the most compressed, where
            the search chooses a position among them and nothing else of the layer; see
            `from_fronts`.
    """

    base: Accelerator
    layers: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    start: Mapping[str, Mapping[str, Any]]
    fronts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Each field is what it is called; `build` uses each parameter, and has all it needs."""
        if problems := self._type_problems() or self._name_problems():
            raise ConfigError(problems)

    def _type_problems(self) -> list[str]:
        """Fields that are not what they are called."""
        start, fronts = self.start, self.fronts
        rules = {
            "base": (
                isinstance(self.base, Accelerator),
                "an Accelerator; try preset('reuse_16x16')",
            ),
            "layers": (_all_of(self.layers, str), "a tuple of layer names"),
            "parameters": (_all_of(self.parameters, Parameter), "a tuple of Parameter"),
            "start": (
                _is_table(start) and all(_is_table(values) for values in start.values()),
                "origins with a value for each parameter, as {'start': {'array.rows': 16}}",
            ),
            "fronts": (
                _is_table(fronts)
                and all(_all_of(settings, Mapping) for settings in fronts.values()),
                "layers with a list of settings of LshReuse each",
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
        _check_base(self.base)
        wanted = list(hardware_values(self.base))
        for layer in self.layers:
            settings = ("position",) if layer in self.fronts else ("reuse", *_OF_REUSE)
            wanted += [f"{layer}.{setting}" for setting in settings]
        given = [parameter.name for parameter in self.parameters]
        problems = [
            f"DesignSpace.parameters must be what a design is built of, got {show(name)}; "
            f"{_meant(name, wanted)}"
            for name in given
            if name not in wanted
        ]
        problems += [
            f"DesignSpace.parameters must name a parameter once, got {show(name)} again; "
            "leave one out"
            for name in sorted({name for name in given if given.count(name) > 1})
        ]
        problems += [
            f"DesignSpace.parameters must hold {name!r}, got none; add it, of one choice where it "
            "is not searched"
            for name in wanted
            if name not in given
        ]
        for origin, values in self.start.items():
            if set(values) != set(given):
                other = ", ".join(sorted(map(str, set(values) ^ set(given))))
                problems.append(
                    f"DesignSpace.start[{origin!r}] must have a value for each parameter and no "
                    f"other, got a difference in {other}; mend these"
                )
        return problems

    @classmethod
    def for_workload(cls, trace: WorkloadTrace, base: Accelerator, *, top: int = 4) -> DesignSpace:
        """The space around a design for the layers where reuse can save most.

        Layers are those in which an image has more than one row to share results among, and of
        these the `top` ones with the most multiply-accumulates. The largest always reuses: designs
        without any reuse are what the others are compared with. The base design's own values join
        the choices, so that it lies in the space; the search starts from it with the settings of
        Deep Reuse (those of CifarNet where the layers have its names and shapes).

        Args:
            trace: the workload; only the shapes of its layers are looked at.
            base: a design with reuse units.
            top: how many layers, at least 1.

        Raises:
            ConfigError: the base has no reuse units, or no layer has rows to share.
        """
        _check_base(base)
        if type(top) is not int or top < 1:
            raise ConfigError(
                f"DesignSpace.top must be an integer of at least 1, got {show(top)}; use 4"
            )
        layers = reusable_layers(trace, top)
        parameters = hardware_parameters(base)
        largest = max(layers, key=lambda layer: layer.gemm.macs)
        for layer in layers:
            parameters += layer_parameters(layer, may_run_dense=layer is not largest)
        start = hardware_values(base)
        is_cifarnet = {layer.name: layer.gemm.k for layer in layers} == {"conv1": 75, "conv2": 1600}
        for layer in layers:
            hashes, length = PAPER_CIFARNET[layer.name] if is_cifarnet else PAPER_DEFAULT
            lengths = next(p.choices for p in parameters if p.name == f"{layer.name}.length")
            start |= {
                f"{layer.name}.reuse": True,
                f"{layer.name}.hashes": hashes,
                f"{layer.name}.length": min(lengths, key=lambda choice: abs(choice - length)),
            }
        return cls(
            base=base,
            layers=tuple(layer.name for layer in layers),
            parameters=tuple(parameters),
            start={"paper" if is_cifarnet else "start": start},
        )

    @classmethod
    def from_fronts(
        cls, trace: WorkloadTrace, base: Accelerator, fronts: Mapping[str, Sequence[Mapping]]
    ) -> DesignSpace:
        """The space of hardware together with a position on the front of each layer.

        A layer has one ordinal parameter, `LAYER.position`: 0 is dense, 1 the most exact setting of
        its front, the last the most compressed. The largest layer always reuses. The search
        starts from the base design in the middle of every front. Hyperplanes are of the kind that
        the front-end has; where it is not the one that a front was found with, the front's order
        is a guide only.

        Args:
            trace: the workload.
            base: a design with reuse units.
            fronts: layer -> settings of `LshReuse` but the projection, see `NestedResult.fronts`.

        Raises:
            ConfigError: the base has no reuse units, or a front is empty or of no layer.
        """
        _check_base(base)
        layers = [layer for layer in trace.layers if fronts.get(layer.name)]
        broken = sorted(set(fronts) - {layer.name for layer in layers})
        if broken or not layers:
            raise ConfigError(
                "DesignSpace.from_fronts fronts must be of layers of the workload and hold a "
                f"setting each, got {', '.join(broken) or 'none'}; give NestedResult.fronts of a "
                "search on this workload"
            )
        largest = max(layers, key=lambda layer: layer.gemm.macs)
        parameters, start = hardware_parameters(base), hardware_values(base)
        for layer in layers:
            positions = tuple(range(int(layer is largest), len(fronts[layer.name]) + 1))
            parameters.append(Parameter(name=f"{layer.name}.position", choices=positions))
            start[f"{layer.name}.position"] = positions[len(positions) // 2]
        return cls(
            base=base,
            layers=tuple(layer.name for layer in layers),
            parameters=tuple(parameters),
            start={"start": start},
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
    def distributions(self) -> dict[str, BaseDistribution]:
        """Name -> what Optuna samples."""
        return {parameter.name: parameter.distribution for parameter in self.parameters}

    @property
    def conditions(self) -> dict[str, Condition]:
        """Name -> when that parameter has an effect; others always have. See `settled`."""
        found = {}
        for parameter in self.parameters:
            layer, _, of = parameter.name.rpartition(".")
            if of in _OF_REUSE and layer in self.layers and layer not in self.fronts:
                otherwise = parameter.encode(self._usual(parameter))
                found[parameter.name] = Condition(
                    on=f"{layer}.reuse", value=True, otherwise=otherwise
                )
        return found

    @property
    def of_decisions(self) -> frozenset[str]:
        """Parameters that decide which rows share a result; accuracy depends on no others."""
        return frozenset(
            parameter.name
            for parameter in self.parameters
            if parameter.name == "front_end.projection"
            or parameter.name.rpartition(".")[0] in self.layers
        )

    def _usual(self, parameter: Parameter) -> Any:
        """The start's value, or the first choice."""
        usual = next(iter(self.start.values()), {}).get(parameter.name)
        return usual if usual in parameter.choices else parameter.choices[0]

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as Optuna stores them."""
        return {
            parameter.name: parameter.encode(values[parameter.name])
            for parameter in self.parameters
        }

    def decode(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Values of what Optuna stores."""
        return {
            parameter.name: parameter.decode(stored[parameter.name])
            for parameter in self.parameters
        }

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
        """The space with other choices for some parameters.

        A start that is not among them goes to the nearest ones, which is told by a warning.

        Args:
            choices: parameter -> its values, from small to large where it is ordered. Others than
                the space's own are taken too for an ordered one, but for a position on a front;
                what no design can have makes infeasible trials.

        Raises:
            ConfigError: there is no such parameter, or it cannot have these values.
        """
        own = {parameter.name: parameter for parameter in self.parameters}
        positions = {f"{name}.position" for name in self.fronts}
        problems = []
        for name, values in choices.items():
            if name not in own:
                problems.append(
                    f"space.parameters must name parameters, got {name!r}; {_meant(name, own)}"
                )
            else:
                problems += own[name].problems(values, known=name in positions)
        if problems:
            raise ConfigError(problems)
        parameters = tuple(
            replace(p, choices=tuple(choices.get(p.name, p.choices))) for p in self.parameters
        )
        start = {}
        for origin, given in self.start.items():
            nearest = {p.name: p.nearest(given[p.name]) for p in parameters}
            moved = [name for name in nearest if nearest[name] != given[name]]
            if moved:
                told = ", ".join(f"{name} {given[name]} -> {nearest[name]}" for name in moved)
                warnings.warn(
                    "the search starts from another design than the base with its usual setting, "
                    f"which is not among the choices: {told}",
                    stacklevel=2,
                )
            # What is moved is no longer the setting of the paper.
            start["start" if moved else origin] = nearest
        return replace(self, parameters=parameters, start=start)

    def build(self, values: Mapping[str, Any]) -> tuple[Accelerator, ReusePolicy]:
        """The design and the policy with these values.

        What the search does not choose follows from what it does: the front-end holds the longest
        sub-vector and signature in use, and the buffers are as wide as the array and the
        reconstructor read and write them in a cycle, as in the presets.
        Where every layer runs dense, the reuse units are left out.

        Args:
            values: parameter name -> value.

        Raises:
            ConfigError: these values make no valid design.
        """
        policies = {
            name: LshReuse(projection=values["front_end.projection"], **settings)
            for name, settings in self.reuse_of(values).items()
        }
        design = self._dense(values)
        if not policies:
            return design, NoReuse()
        base, accumulator = self.base, self.base.accumulator_bits
        assert base.front_end and base.cache and base.reconstructor  # checked by for_workload
        sums = values["reconstructor.sums_per_cycle"]
        # Ports as wide as the base design's, and as many as it takes: a further port is dearer than
        # a wider one, in wires and banks that the area model does not see.
        width = min(sums, base.reconstructor.width)
        ports = -(-sums // width)
        sum_bits = width * accumulator
        longest = max(policy.length or 0 for policy in policies.values())
        operand = base.operand_bits
        return replace(
            design,
            name=f"{base.name}_searched",
            # Every lane reads a sub-vector.
            activation_buffer=replace(
                design.activation_buffer,
                width_bits=max(design.activation_buffer.width_bits, longest * operand),
                ports=values["front_end.lanes"],
            ),
            # Every row gathered reads a result, reads the sum so far and writes it back.
            output_buffer=replace(
                design.output_buffer,
                width_bits=max(design.output_buffer.width_bits, sum_bits),
                ports=2 * ports,
            ),
            front_end=replace(
                base.front_end,
                max_hashes=max(policy.hashes for policy in policies.values()),
                max_length=longest,
                lanes=values["front_end.lanes"],
                projection=values["front_end.projection"],
            ),
            cache=replace(
                base.cache,
                entries=values["cache.entries"],
                ways=values["cache.ways"],
                banks=values["cache.banks"],
                clear_entries_per_cycle=values["cache.clear_entries_per_cycle"],
            ),
            centroid_buffer=SramBuffer(
                capacity_bytes=values["centroid_buffer.kib"] * KIB,
                width_bits=sum_bits,
                ports=max(2, ports),  # the array reads a centroid and writes a result in a cycle
            ),
            reconstructor=Reconstructor(ports=ports, width=width),
        ), PerLayer(policies)

    def _dense(self, values: Mapping[str, Any]) -> Accelerator:
        """The design without reuse units."""
        rows, columns = values["array.rows"], values["array.columns"]
        base, operand = self.base, self.base.operand_bits
        widths = {
            "activation_buffer": rows * operand,
            "weight_buffer": columns * operand,
            "output_buffer": columns * base.accumulator_bits,
        }
        buffers = {
            name: SramBuffer(
                capacity_bytes=values[f"{name}.kib"] * KIB,
                width_bits=width,
                ports=2 if name == "output_buffer" else 1,  # a sum is read and written back
            )
            for name, width in widths.items()
        }
        array = replace(
            base.array, rows=rows, columns=columns, fold_timing=values["array.fold_timing"]
        )
        plain = base.without_reuse(f"{base.name}_searched_dense")
        return replace(plain, array=array, **buffers)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """The space as plain values, to be stored with a study."""
        description = {
            "base": self.base.to_dict(),
            "layers": list(self.layers),
            "parameters": [
                {"name": p.name, "choices": list(p.choices), "ordered": p.ordered}
                for p in self.parameters
            ],
            "start": {name: dict(values) for name, values in self.start.items()},
        }
        if self.fronts:
            description["fronts"] = {name: list(each) for name, each in self.fronts.items()}
        return description

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> DesignSpace:
        """The space that `to_dict` described.

        Raises:
            ConfigError: it lacks a part, or a part breaks a rule.
        """
        if not _is_table(description):
            raise ConfigError(
                f"DesignSpace must be described by a mapping, got {show(description)}; use the "
                "result of to_dict()"
            )
        try:
            return cls(
                base=Accelerator.from_dict(description["base"]),
                layers=tuple(description["layers"]),
                parameters=tuple(
                    Parameter(name=p["name"], choices=tuple(p["choices"]), ordered=p["ordered"])
                    for p in description["parameters"]
                ),
                start=description["start"],
                fronts={name: tuple(each) for name, each in description.get("fronts", {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                "DesignSpace must be described as to_dict() does it, got "
                f"{show(description)} ({told(error)}); use the result of to_dict()"
            ) from error


def _all_of(values: object, kind: type) -> bool:
    return isinstance(values, tuple | list) and all(isinstance(each, kind) for each in values)


def _is_table(values: object) -> bool:
    return isinstance(values, Mapping) and all(isinstance(name, str) for name in values)


def _meant(name: str, known: Iterable[str]) -> str:
    """The parameter that may be meant, or all that can be searched."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose of {', '.join(known)}"


def _check_base(base: Accelerator) -> None:
    """There must be units to vary."""
    if not isinstance(base, Accelerator):
        raise ConfigError(
            f"DesignSpace.base must be an Accelerator, got {show(base)}; try preset('reuse_16x16')"
        )
    searched = ("front_end", "cache", "centroid_buffer", "reconstructor")
    missing = [name for name in searched if name not in base.units]
    if missing:
        raise ConfigError(
            f"DesignSpace.base must have reuse units, got {base.name!r} without "
            f"{', '.join(missing)}; use preset('reuse_16x16'), or add them"
        )
