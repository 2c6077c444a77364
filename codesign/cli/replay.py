"""What the commands share that replay one workload: its options, checks and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import typer

from accelerators import BUILT_IN_TABLES, Accelerator, ConfigError, read_scale_sim_config
from codesign.cli.options import DEFAULT_DESIGN, DESIGN_HELP, Policy, PolicySet
from codesign.cli.terminal import note, say
from codesign.space.lookup import (
    find_accelerator,
    find_policy,
    find_score,
    policy_from_options,
    refuse_idle,
)
from simulator import NoReuse, ReusePolicy
from simulator.results.weights import AS_CLASS_SETS, untrained
from workloads.traces.files import DESCRIPTION
from workloads.traces.scale_sim import read_topology
from workloads.traces.trace import WorkloadTrace

# Of hashing: what it is to learn from is of no use without.
LEARNS = (
    "with thresholds or hyperplanes that are learned, --thresholds spread or mean or --learning"
)
ReplayScore = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FUNCTION",
        help="The function that the trace was captured with as --score, which a saved trace does "
        "not hold, or another (executed); needs --model.",
    ),
]


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

    def read(self, *, model: str | None = None, score: str | None = None) -> Replay:
        """Read the trace and the design, or SCALE-Sim's files of both.

        Args:
            model: the captured model, if its name was given.
            score: the function that judges its outputs, if one was named.

        Raises:
            ConfigError: options that do not go together, or name no design or no cost table.
            TraceError: a workload that cannot be read.
        """
        if score is not None and model is None:
            raise ConfigError(
                f"--score must come with --model, got {score!r} alone; name the captured model: "
                "without it there are no answers to judge"
            )
        if self.scale_sim is not None:
            return self._read_scale_sim(self.scale_sim, model)
        if self.trace is None:
            raise ConfigError(
                "TRACE must be given, got nothing; name a directory that `codesign capture` wrote, "
                "or give SCALE-Sim's files by --scale-sim CFG TOPOLOGY"
            )
        design = self._priced(find_accelerator(self.accelerator or DEFAULT_DESIGN))
        policy = self._policy(design)
        asked = Replay(
            trace=_judged(WorkloadTrace.load(self.trace), score),
            design=design,
            policy=policy,
            calibration=None if self.calibration is None else WorkloadTrace.load(self.calibration),
        )
        refuse_idle({"--calibration": self.calibration is not None and not asked.learns}, LEARNS)
        return asked

    def _policy(self, design: Accelerator) -> ReusePolicy:
        """The reuse: a policy by name, or LSH by its own options."""
        lsh = ("hashes", "length", "layer", "scope", "thresholds", "learning", "order")
        defaults = {option.name: option.default for option in fields(self)}
        given = [
            name
            for name in (*lsh, "representative")
            if getattr(self, name) not in (defaults[name], [])
        ]
        check_policy(self.policy, self.policy_set, given)
        if self.policy is not None:
            return find_policy(self.policy, self.policy_set or ())
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

    def _read_scale_sim(self, files: tuple[Path, Path], model: str | None) -> Replay:
        """Shapes alone, on the design of the .cfg file."""
        given = [
            "TRACE" if option.name == "trace" else f"--{option.name.replace('_', '-')}"
            for option in fields(self)
            if option.name not in ("scale_sim", "technology", "engine")
            and getattr(self, option.name) not in (option.default, [])
        ] + (["--model"] if model is not None else [])
        if given:
            raise ConfigError(
                f"--scale-sim must stand without {', '.join(given)}: its files are the design and "
                "the workload, shapes alone, and nothing tells which rows are alike; leave out "
                f"{', '.join(given)}, or capture the model and give TRACE instead of --scale-sim"
            )
        config, topology = files
        return Replay(
            trace=read_topology(topology),
            design=self._priced(read_scale_sim_config(config)),
            policy=NoReuse(),
        )

    def _priced(self, design: Accelerator) -> Accelerator:
        """The design with the cost table that was asked for."""
        return design if self.technology is None else replace(design, technology=self.technology)


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
            "or give them as --policy-set FIELD=VALUE"
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


def check_weights(model: str | None, weights: Path | None) -> None:
    """Weights are of a model that is named.

    Raises:
        ConfigError: none is.
    """
    if weights is not None and model is None:
        raise ConfigError(
            "--weights must come with --model, got none; name the captured model, such as "
            "--model cifarnet"
        )


def check_learns(model: str | None, calibrate_under_reuse: bool, asked: Replay) -> None:
    """To learn under reuse, a model must run, and something must be learned.

    Raises:
        ConfigError: no model is named, or nothing is learned.
    """
    refuse_idle({"--calibrate-under-reuse": calibrate_under_reuse and not asked.learns}, LEARNS)
    if calibrate_under_reuse and model is None:
        raise ConfigError(
            "--calibrate-under-reuse must come with --model, got none; name the captured model, "
            "such as --model cifarnet"
        )


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
