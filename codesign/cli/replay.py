"""What the commands share that replay one workload: its options, checks and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelerators import BUILT_IN_TABLES, Accelerator, ConfigError, read_scale_sim_config
from codesign.cli.options import (
    DEFAULT_DESIGN,
    DESIGN_HELP,
    CalibrateUnderReuse,
    Policy,
    PolicySet,
    TechniqueNames,
    TechniqueSet,
    Weights,
)
from codesign.cli.terminal import note, say
from codesign.space.lookup import (
    captured_model,
    find_accelerator,
    find_policy,
    find_score,
    policy_from_options,
    refuse_idle,
)
from codesign.space.technique_lookup import find_technique
from codesign.space.techniques import THEN
from simulator import NoReuse, PerLayer, ReusePolicy, techniques
from simulator.results.weights import AS_CLASS_SETS, untrained
from workloads.traces.files import DESCRIPTION
from workloads.traces.layer import Layer
from workloads.traces.scale_sim import read_topology
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    from torch import nn

# Options of the captured model, which are checked with it.
_OF_MODEL = ("weights", "score", "calibrate_under_reuse")
# Of hashing: what it is to learn from is of no use without.
_LEARNS = (
    "with thresholds or hyperplanes that are learned, --thresholds spread or mean or --learning"
)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What the options of a replay ask for.

    Attributes:
        trace: the workload.
        design: the accelerator.
        policy: the reuse.
        calibration: another trace of the model, if any.
    """

    trace: WorkloadTrace
    design: Accelerator
    policy: ReusePolicy
    calibration: WorkloadTrace | None = None

    @property
    def learns(self) -> bool:
        """Whether some layer's hashing has anything to learn."""
        layers = [layer for layer in self.trace.layers if self.policy.applies_to(layer)]
        return any(self.policy.needs_calibration(layer) for layer in layers)


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """The options that all replays share; each field is one, see `with_options`."""

    trace: Annotated[
        Path | None, typer.Argument(help="Directory that `codesign capture` wrote.")
    ] = None
    accelerator: Annotated[
        str | None, typer.Option(help=f"{DESIGN_HELP} By default {DEFAULT_DESIGN}.")
    ] = None
    technology: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.csv",
            help=f"Cost table to use in place of the design's own: {', '.join(BUILT_IN_TABLES)}, "
            "or your own file.",
        ),
    ] = None
    scale_sim: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="CFG TOPOLOGY",
            help="SCALE-Sim's files, the .cfg and the topology .csv, instead of TRACE and "
            "--accelerator; runs dense.",
        ),
    ] = None
    hashes: Annotated[int | None, typer.Option(help="Hashes H of every layer.")] = None
    length: Annotated[int | None, typer.Option(help="Sub-vector length L of every layer.")] = None
    layer: Annotated[
        list[str] | None,
        typer.Option(help="NAME=H,L or NAME=dense, for layers of their own; may be repeated."),
    ] = None
    scope: Annotated[
        str,
        typer.Option(
            help="Share results within an `image` or a `batch`, or keep them over a `stream`."
        ),
    ] = "image"
    thresholds: Annotated[
        str,
        typer.Option(
            help="Of the hashes: `zero` (the paper's), at the `mean`, or `spread` about it."
        ),
    ] = "spread"
    learning: Annotated[
        str,
        typer.Option(
            help="Hyperplanes drawn at random (`none`), or learned from the calibration: `pca`, "
            "`itq` or `task`. On a front-end of signs, `task` alone."
        ),
    ] = "none"
    order: Annotated[
        str,
        typer.Option(
            help="Cut a convolution's rows `channels_first` (c, kh, kw) or `channels_last`."
        ),
    ] = "channels_first"
    representative: Annotated[
        str, typer.Option(help="Of a cluster: the `centroid`, or the `first` row seen.")
    ] = "centroid"
    technique: TechniqueNames = None
    policy: Policy = None
    policy_set: PolicySet = None
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Another trace of the model, to learn thresholds and hyperplanes from; without "
            "it they are learned from TRACE itself."
        ),
    ] = None
    engine: Annotated[
        str,
        typer.Option(help="`compiled`, or `event`, the slow reference; both find the same cycles."),
    ] = "compiled"

    def files(self) -> list[Path | None]:
        """Files that are read, which no output may take the place of."""
        named = [each or "" for each in (self.accelerator, self.policy)]
        own = [Path(each.rpartition(":")[0] or each) for each in named]
        traces = [each / DESCRIPTION for each in (self.trace, self.calibration) if each is not None]
        return [*traces, *(self.scale_sim or ()), Path(self.technology or ""), *own]

    def read(self) -> Replay:
        """Read the trace and the design, or SCALE-Sim's files of both.

        Raises:
            ConfigError: options that do not go together, or name no design or no cost table.
            TraceError: a workload that cannot be read.
        """
        if self.scale_sim is not None:
            return self._read_scale_sim(*self.scale_sim)
        if self.trace is None:
            raise ConfigError(
                "TRACE must be given, got nothing; name a directory that `codesign capture` wrote, "
                "or give SCALE-Sim's files by --scale-sim CFG TOPOLOGY"
            )
        design = self._priced(find_accelerator(self.accelerator or DEFAULT_DESIGN))
        trace = WorkloadTrace.load(self.trace)
        asked = Replay(
            trace=trace,
            design=design,
            policy=self._policy(design, trace.layers),
            calibration=None if self.calibration is None else WorkloadTrace.load(self.calibration),
        )
        refuse_idle({"--calibration": self.calibration is not None and not asked.learns}, _LEARNS)
        return asked

    def _policy(self, design: Accelerator, of: Sequence[Layer]) -> ReusePolicy:
        """The reuse: a policy by name, or LSH by its own options."""
        lsh = ("hashes", "length", "layer", "scope", "thresholds", "learning", "order")
        defaults = {option.name: option.default for option in fields(self)}
        given = [
            name
            for name in (*lsh, "representative")
            if getattr(self, name) not in (defaults[name], [])
        ]
        named = self._technique(given, design, of) or policy_by_name(
            self.policy, self.policy_set, self.layer or [], given
        )
        if named is not None:
            return named
        return policy_from_options(
            hashes=self.hashes,
            length=self.length,
            layers=self.layer or [],
            scope=self.scope,
            thresholds=self.thresholds,
            learning=self.learning,
            order=self.order,
            representative=self.representative,
            accelerator=design,
        )

    def _technique(
        self, lsh: Sequence[str], design: Accelerator, of: Sequence[Layer]
    ) -> ReusePolicy | None:
        """The technique that was named, and layers that run dense beside it; `None` without one."""
        settings = getattr(self, "setting", None) or []
        refuse_idle({"--set": bool(settings) and self.technique is None}, "with --technique")
        if self.technique is None:
            return None
        layers = self.layer or []
        dense = [text.removesuffix("=dense") for text in layers if text.endswith("=dense")]
        others = [f"--{name}" for name in lsh if name != "layer" or len(dense) < len(layers)]
        others += ["--policy"] if self.policy is not None else []
        if others:
            raise ConfigError(
                f"--technique must stand without {', '.join(others)}, got both; leave one out, or "
                "give fields as --set FIELD=VALUE; of --layer, only NAME=dense may stay"
            )
        found = find_technique(self.technique, settings, layers=of, dense=dense)
        known = {*techniques()} & {*self.technique.split(THEN)}
        unbuilt = sorted(
            name for name in known if not {*techniques()[name].units} <= {*design.parts()}
        )
        if unbuilt:
            raise ConfigError(
                f"--technique {unbuilt[0]} must be one that some design has the units of, got a "
                "study tool that none has: it takes a share of the work that nothing here can find "
                "out; use it by `codesign similarity TRACE --policy`, or another technique"
            )
        return found

    def _read_scale_sim(self, config: Path, topology: Path) -> Replay:
        """Shapes alone, on the design of the .cfg file."""
        given = [
            "TRACE" if option.name == "trace" else f"--{option.name.replace('_', '-')}"
            for option in fields(self)
            if option.name not in ("scale_sim", "technology", "engine", *_OF_MODEL)
            and getattr(self, option.name) not in (option.default, [])
        ]
        if given:
            raise ConfigError(
                f"--scale-sim must stand without {', '.join(given)}: its files are the design and "
                "the workload, shapes alone, and nothing tells which rows are alike; leave out "
                f"{', '.join(given)}, or capture the model and give TRACE instead of --scale-sim"
            )
        return Replay(
            trace=read_topology(topology),
            design=self._priced(read_scale_sim_config(config)),
            policy=NoReuse(),
        )

    def _priced(self, design: Accelerator) -> Accelerator:
        """The design with the cost table that was asked for."""
        return design if self.technology is None else replace(design, technology=self.technology)


@dataclass(frozen=True, kw_only=True)
class ModelReplayOptions(ReplayOptions):
    """Those of a replay that may run the captured model too."""

    setting: TechniqueSet = None
    model: Annotated[
        str | None, typer.Option(help="The captured model, to know the accuracy under reuse.")
    ] = None
    weights: Weights = None
    score: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="The function that the trace was captured with as --score, which a saved trace "
            "does not hold, or another (executed); needs --model.",
        ),
    ] = None
    calibrate_under_reuse: CalibrateUnderReuse = False

    def files(self) -> list[Path | None]:
        """See `ReplayOptions`."""
        return [*super().files(), self.weights]

    def read(self) -> Replay:
        """See `ReplayOptions`; what is of a model must come with one."""
        if self.score is not None and self.model is None:
            raise ConfigError(
                f"--score must come with --model, got {self.score!r} alone; name the captured "
                "model: without it there are no answers to judge"
            )
        asked = super().read()
        if self.weights is not None and self.model is None:
            raise needs_model("--weights")
        is_idle = self.calibrate_under_reuse and not asked.learns
        refuse_idle({"--calibrate-under-reuse": is_idle}, _LEARNS)
        if self.calibrate_under_reuse and self.model is None:
            raise needs_model("--calibrate-under-reuse")
        return replace(asked, trace=_judged(asked.trace, self.score))

    def captured(self, trace: WorkloadTrace) -> nn.Module | None:
        """The model, if one is named; see `captured_model`."""
        return None if self.model is None else captured_model(self.model, self.weights, trace)


def needs_model(option: str) -> ConfigError:
    """The error of an option that is of no use without a model."""
    return ConfigError(
        f"{option} must come with --model, got none; name the captured model, such as "
        "--model cifarnet"
    )


def policy_by_name(
    policy: str | None, settings: Sequence[str] | None, layers: Sequence[str], lsh: Sequence[str]
) -> ReusePolicy | None:
    """The policy that was named, and layers that run dense beside it; `None` without a name.

    Args:
        policy: as for `check_policy`, as are `settings` and `lsh`.
        settings: of its fields.
        layers: what `--layer` says.
        lsh: names of the options of LSH that are given.

    Raises:
        ConfigError: options that do not go together, or that name no policy or field of it.
    """
    dense = [text.removesuffix("=dense") for text in layers if text.endswith("=dense")]
    alone = policy is not None and len(dense) == len(layers)
    check_policy(policy, settings, [name for name in lsh if name != "layer" or not alone])
    if policy is None:
        return None
    found = find_policy(policy, settings or ())
    return PerLayer(dict.fromkeys(dense, NoReuse()), found) if dense else found


def check_policy(policy: str | None, settings: Sequence[str] | None, lsh: Sequence[str]) -> None:
    """A policy is chosen by name or by the options of LSH.

    Args:
        policy: the name, if one is given.
        settings: of its fields.
        lsh: names of the options of LSH that are given.

    Raises:
        ConfigError: both are given, or settings of no policy.
    """
    refuse_idle({"--policy-set": bool(settings) and policy is None}, "with --policy")
    if policy is not None and lsh:
        given = ", ".join(f"--{name}" for name in lsh)
        raise ConfigError(
            f"--policy must stand without {given}, got both: these are of LSH; leave out {given}, "
            "or give them as --policy-set FIELD=VALUE; of --layer, only NAME=dense may stay"
        )


def _judged(trace: WorkloadTrace, score: str | None) -> WorkloadTrace:
    """The trace with the score function that was named."""
    if score is None:
        return trace
    found = find_score(score)
    if isinstance(found, str):
        raise ConfigError(
            f"--score must be file.py:FUNCTION or package.module:FUNCTION, got {found!r}; capture "
            "the trace with that score"
        )
    return trace.with_score(found.function, found.name)


def tell_random(trace: WorkloadTrace) -> None:
    """Say so where a model was not trained, or may not be."""
    told = untrained(trace.provenance.get("weights"))
    if told is not None:
        has = (
            "was given no weights, so they are random unless its class loads some"
            if told == AS_CLASS_SETS
            else f"has {told}"
        )
        say(f"\nThe model {has}: a trained one's activations may be alike otherwise.")


def write_files(*files: tuple[Path | None, Callable[[Path], Path]]) -> None:
    """Write the files that were asked for."""
    for path, write in files:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            note(f"wrote {write(path)}")
