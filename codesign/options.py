"""Options that several commands share, and what those of a replay ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from accelerators import Accelerator, ConfigError, read_scale_sim_config
from codesign.designs import find_accelerator, policy_from_options
from simulator import NoReuse, ReusePolicy
from workloads.scale_sim import read_topology
from workloads.trace import WorkloadTrace

DEFAULT_DESIGN, DEFAULT_SCOPE = "reuse_16x16", "image"
DEFAULT_LEARNING, DEFAULT_ORDER, DEFAULT_REPRESENTATIVE = "none", "channels_first", "centroid"

Model = Annotated[
    str,
    typer.Option(
        help="cifarnet (trained on the digits at first use), efficientnet_lite0, "
        "package.module:Class or file.py:Class (executed)."
    ),
]
Inputs = Annotated[
    str,
    typer.Option(
        help="digits, cifar10:ARCHIVE, a sample video (bikes, bigbuckbunny, carphone) or the path "
        "of a video."
    ),
]
Images = Annotated[int, typer.Option(min=1, help="Images or frames to judge on.")]
Weights = Annotated[Path | None, typer.Option(help="Weights of the model, .safetensors.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same numbers.")]
_DESIGN_HELP = "A preset, or file.py:NAME or package.module:NAME (executed)."
Design = Annotated[str, typer.Option(help=_DESIGN_HELP)]

# Of replays: `simulate` and `sweep`.
Trace = Annotated[Path | None, typer.Argument(help="Directory that `codesign capture` wrote.")]
ReplayDesign = Annotated[
    str | None, typer.Option(help=f"{_DESIGN_HELP} By default {DEFAULT_DESIGN}.")
]
Hashes = Annotated[int | None, typer.Option(help="Hashes H of every layer.")]
Length = Annotated[int | None, typer.Option(help="Sub-vector length L of every layer.")]
LayerReuse = Annotated[
    list[str] | None,
    typer.Option(help="NAME=H,L or NAME=dense, for layers of their own; may be repeated."),
]
Scope = Annotated[str, typer.Option(help="Share results within an `image` or a `batch`.")]
Plain = Annotated[bool, typer.Option(help="Hash without subtracting the mean.")]
Learning = Annotated[
    str,
    typer.Option(
        help="Hyperplanes drawn at random (`none`), or learned from the calibration: `pca`, `itq` "
        "or `task`. On a front-end of signs, `task` alone."
    ),
]
Order = Annotated[
    str,
    typer.Option(help="Cut a convolution's rows `channels_first` (c, kh, kw) or `channels_last`."),
]
Representative = Annotated[
    str, typer.Option(help="Of a cluster: the `centroid`, or the `first` row seen.")
]
Calibration = Annotated[
    Path | None,
    typer.Option(help="Another trace of the model, to take the mean and learn from."),
]
ScaleSim = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        metavar="CFG TOPOLOGY",
        help="SCALE-Sim's files, the .cfg and the topology .csv, instead of TRACE and "
        "--accelerator; runs dense.",
    ),
]
Engine = Annotated[
    str, typer.Option(help="`compiled`, or `event`, the slow reference; both find the same cycles.")
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


def read_replay(
    *,
    trace: Path | None,
    accelerator: str | None,
    scale_sim: tuple[Path, Path] | None,
    hashes: int | None,
    length: int | None,
    layer: list[str] | None,
    scope: str,
    plain: bool,
    learning: str,
    order: str,
    representative: str,
    calibration: Path | None,
    model: str | None = None,
) -> Replay:
    """Read the trace and the design, or SCALE-Sim's files of both.

    Raises:
        ConfigError: options that do not go together, or name no design.
        TraceError: a workload that cannot be read.
    """
    if scale_sim is not None:
        excluded = {
            "TRACE": trace,
            "--accelerator": accelerator,
            "--hashes": hashes,
            "--length": length,
            "--layer": layer or None,
            "--scope": None if scope == DEFAULT_SCOPE else scope,
            "--plain": plain or None,
            "--learning": None if learning == DEFAULT_LEARNING else learning,
            "--order": None if order == DEFAULT_ORDER else order,
            "--representative": (
                None if representative == DEFAULT_REPRESENTATIVE else representative
            ),
            "--calibration": calibration,
            "--model": model,
        }
        given = [name for name, value in excluded.items() if value is not None]
        if given:
            raise ConfigError(
                f"--scale-sim must stand without {', '.join(given)}: its files are the design and "
                "the workload, shapes alone, and nothing tells which rows are alike; leave out "
                f"{', '.join(given)}, or capture the model and give TRACE instead of --scale-sim"
            )
        return Replay(
            trace=read_topology(scale_sim[1]),
            design=read_scale_sim_config(scale_sim[0]),
            policy=NoReuse(),
        )
    if trace is None:
        raise ConfigError(
            "TRACE must be given, got nothing; name a directory that `codesign capture` wrote, or "
            "give SCALE-Sim's files by --scale-sim CFG TOPOLOGY"
        )
    design = find_accelerator(accelerator or DEFAULT_DESIGN)
    policy = policy_from_options(
        hashes=hashes,
        length=length,
        layers=layer or [],
        scope=scope,
        plain=plain,
        learning=learning,
        order=order,
        representative=representative,
        accelerator=design,
    )
    return Replay(
        trace=WorkloadTrace.load(trace),
        design=design,
        policy=policy,
        calibration=None if calibration is None else WorkloadTrace.load(calibration),
    )
