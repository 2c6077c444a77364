"""What the studies of Treasure share: streets, networks trained on them, and reuse judged there."""

import argparse
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import update_bn

from accelerators import preset, processor_preset
from simulator import (
    LshReuse,
    NoReuse,
    PerLayer,
    ReusedForward,
    ReuseRun,
    decide,
    predict,
    simulate,
)
from workloads import WorkloadTrace, capture
from workloads.models import load, read_metadata
from workloads.models.twinlitenet import TwinLiteNet
from workloads.models.weights import save_tensors
from workloads.streams import ImageSet
from workloads.streams.camvid import camvid
from workloads.streams.clips import ClipSet
from workloads.streams.lanes import LANE_CLASSES
from workloads.training import TrainingPlan, similarity_aware_training
from workloads.training.tasks import LaneDetection, SceneParsing, balanced_weights
from workloads.training.teacher import lane_labels_by
from workloads.writing import write_atomically

POINT = 0.01
LAMBDA = 0.001  # the paper's, of R1 and of R2
DRIVES = ("train_1hz", "test_1hz", "seq_0016E5_15hz")
SIZE = (120, 160)
# Epochs and AdamW's learning rate from random weights; SA-training begins at half of that rate.
DENSE = {
    "resnet18": (30, 0.002),
    "swin": (40, 0.001),
    "resnet38": (20, 0.002),
    "psanet": (20, 0.002),
    "resnest": (20, 0.002),
}
# Frames under reuse that hashing learns from.
CALIBRATION_FRAMES = 8
NORMALISING_FRAMES = 64

Settings = Mapping[str, tuple[int, int]]
"""Layer -> H and L; layers that are not named run dense."""


@dataclass(frozen=True, kw_only=True)
class Streets:
    """Labelled drives of one task.

    Attributes:
        task: loss and score of training.
        score: what the task is scored by, see `workloads.SCORES`.
        train, choose, judge: clips to learn from, to choose settings on, and to judge on.
    """

    task: SceneParsing | LaneDetection
    score: str
    train: ClipSet
    choose: ClipSet
    judge: ClipSet


def scenes(folder: Path, drives: tuple[str, ...] = DRIVES, size: tuple[int, int] = SIZE) -> Streets:
    """CamVid's drives with its 11 classes; rare ones weigh more in training."""
    train, choose, judge = (camvid(folder / drive, size=size) for drive in drives)
    weights = balanced_weights(train, train.classes)
    task = SceneParsing(classes=train.classes, class_weights=weights)
    return Streets(task=task, score="miou", train=train, choose=choose, judge=judge)


def lanes(
    folder: Path,
    teacher: Path,
    out: Path,
    drives: tuple[str, ...] = DRIVES,
    size: tuple[int, int] = SIZE,
) -> Streets:
    """The same drives, their lanes labelled by TwinLiteNet; its answers are kept in `out`."""
    labelled = [_lanes_of(folder / drive, teacher, out / f"{drive}.safetensors", size)
                for drive in drives]  # fmt: skip
    weights = balanced_weights(labelled[0], LANE_CLASSES, offset=1.1)
    train, choose, judge = labelled
    return Streets(
        task=LaneDetection(class_weights=weights), score="f1", train=train, choose=choose,
        judge=judge,
    )  # fmt: skip


def _lanes_of(drive: Path, teacher: Path, kept: Path, size: tuple[int, int]) -> ClipSet:
    if not kept.is_file():
        network = load("twinlitenet", teacher).eval()
        made = lane_labels_by(network, camvid(drive, size=TwinLiteNet.input_shape[1:]), size=size)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_tensors({"pixels": made.pixels, "labels": made.labels}, kept)
    found = load_file(kept)
    source = f"CamVid {drive.name}, labelled by TwinLiteNet"
    return replace(camvid(drive, size=size), classes=LANE_CLASSES, source=source, **found)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network and what its training took."""

    model: nn.Module
    seconds: float


def plan(network: str, epochs: int, *, share: float = 1, **more: Any) -> TrainingPlan:
    """AdamW, which needs far fewer epochs than the paper's SGD; no similarity terms unless given.

    Args:
        network: whose learning rate.
        epochs: of training.
        share: of that rate to begin with.
        more: other settings of the plan.
    """
    settings = {"intra_weight": 0, "inter_weight": 0} | more
    _, rate = DENSE[network.partition("_")[0]]
    return TrainingPlan(
        epochs=epochs, optimizer="adamw", learning_rate=share * rate,
        weight_decay=0.01, schedule="cosine", batch=4, flips=True, **settings,
    )  # fmt: skip


def trained(
    name: str,
    model: nn.Module,
    streets: Streets,
    folder: Path,
    chosen: TrainingPlan,
    *,
    reuse: PerLayer | None = None,
    validation: ClipSet | None = None,
) -> Trained:
    """Train, go on with what was begun, or read what is there."""
    weights = folder / "weights.safetensors"
    if not weights.is_file():
        similarity_aware_training(
            model, streets.train, streets.task, plan=chosen, validation=validation,
            reuse=None if reuse is None else ReusedForward(reuse), out=folder,
            resume=(folder / "checkpoint.safetensors").is_file(),
            progress=lambda done: print(
                f"{folder.relative_to(folder.parents[2])}: {done.epoch}/{done.epochs}", flush=True
            ),
        )  # fmt: skip
    done = read_metadata(weights)
    network = load(name, weights, **_made_for(streets))
    return Trained(model=network, seconds=float(done["training_s"]))


def dense_network(name: str, streets: Streets, folder: Path) -> Trained:
    """A network trained dense, in floating point."""
    model = load(name, **_made_for(streets))
    epochs, _ = DENSE[name.partition("_")[0]]
    return trained(name, model, streets, folder, plan(name, epochs))


def _made_for(streets: Streets) -> dict[str, Any]:
    """What a network of these streets is built with."""
    return {"num_classes": streets.task.outputs, "input_size": streets.train.pixels.shape[-2:]}


def traced(model: nn.Module, streets: Streets, clips: ClipSet, count: int) -> WorkloadTrace:
    """The network on `count` frames spread over the clips."""
    chosen = spread(clips, count)
    return capture(
        model, chosen.images, labels=chosen.labels, score=streets.score, source=clips.source
    )


def spread(clips: ClipSet, count: int) -> ImageSet:
    """Every so-manieth frame."""
    step = max(1, len(clips.pixels) // count)
    pixels, labels = clips.pixels[::step][:count], clips.labels[::step][:count]
    return replace(clips, pixels=pixels, labels=labels, starts=[0]).images(len(pixels))


def reusable(trace: WorkloadTrace) -> list[str]:
    """Layers with weights that have rows to share, but the first, which sees the picture."""
    able = [each for each in trace.layers if each.weights_are_parameters]
    return [each.name for each in able[1:] if each.gemm.m > each.row_images]


def uniform(trace: WorkloadTrace, hashes: int, length: int) -> Settings:
    """One H and L in every layer, no longer than its rows."""
    long = {layer.name: layer.gemm.k for layer in trace.layers}
    return {name: (hashes, min(length, long[name])) for name in reusable(trace)}


def policy_of(settings: Settings) -> PerLayer:
    """Reuse within each image, and dense layers else."""
    return PerLayer(
        {
            name: LshReuse(hashes=hashes, length=length, scope="image")
            for name, (hashes, length) in settings.items()
        },
        NoReuse(),
    )


def removed(trace: WorkloadTrace, run: ReuseRun) -> float:
    """1 - |X_c| / |X| over the inputs of all layers with weights."""
    kept = total = 0
    for layer in trace.layers:
        if layer.weights_are_parameters:
            elements = layer.gemm.count * layer.gemm.m * layer.gemm.k
            made = run.decisions[layer.name]
            total += elements
            kept += elements if made is None else made.macs // layer.gemm.n
    return 1 - kept / total


def operations(trace: WorkloadTrace, run: ReuseRun, settings: Settings) -> float:
    """Hashing, products and additions that are left, over the dense products (Deep Reuse, V-A)."""
    left = dense = 0.0
    for layer in trace.layers:
        made, macs = run.decisions[layer.name], layer.gemm.macs
        share = 1.0
        if made is not None:
            hashes, _ = settings[layer.name]
            share = hashes / layer.gemm.n + made.remaining_ratio + 1 / made.shared.sub_vector_length
        dense, left = dense + macs, left + macs * share
    return left / dense


class _UnderReuse(nn.Module):
    """A network whose call is its forward pass under reuse."""

    def __init__(self, model: nn.Module, policy: PerLayer) -> None:
        super().__init__()
        self.model = model
        self._reuse = ReusedForward(policy)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self._reuse(self.model, frames)


def normalised(model: nn.Module, streets: Streets, settings: Settings) -> nn.Module:
    """A copy whose batch normalisation has its statistics under reuse, of frames to learn from.

    No weight changes. Averages, as reuse makes them, vary less than rows do; a network that was
    trained dense expects the rows' variance.
    """
    network = copy.deepcopy(model)
    frames = spread(streets.train, NORMALISING_FRAMES).images
    update_bn(frames.split(CALIBRATION_FRAMES), _UnderReuse(network, policy_of(settings)))
    return network.eval()


def decided(
    model: nn.Module, streets: Streets, clips: ClipSet, count: int, settings: Settings
) -> tuple[WorkloadTrace, ReuseRun]:
    """Reuse on `count` frames of clips.

    Hashing learns from frames to learn from, of each layer after reuse in those before it, as it
    did in SA-training: a network made under reuse has other activations without it.
    """
    policy = policy_of(settings)
    trace = traced(model, streets, clips, count)
    learned = traced(model, streets, streets.train, CALIBRATION_FRAMES)
    return trace, decide(
        trace, policy, model=model, calibration=learned, calibrate_under_reuse=True,
        layer_errors=False,
    )  # fmt: skip


def tried(
    model: nn.Module, streets: Streets, clips: ClipSet, count: int, settings: Settings
) -> dict[str, Any]:
    """Scores without and with reuse, and what reuse removes, on `count` frames of clips."""
    trace, run = decided(model, streets, clips, count, settings)
    return {
        "dense": run.dense_accuracy,
        "score": run.accuracy,
        "removed": removed(trace, run),
        "operations": operations(trace, run, settings),
        "settings": {name: list(each) for name, each in settings.items()},
    }


def speeds(model: nn.Module, streets: Streets, settings: Settings) -> dict[str, float]:
    """Against dense, on two judged frames: the accelerator, and a Raspberry Pi 3 (predicted)."""
    trace, run = decided(model, streets, streets.judge, 2, settings)
    report = simulate(trace, preset("reuse_16x16"), run)
    precision = "int8" if any(layer.quantisation for layer in trace.layers) else "fp32"
    board = processor_preset("Pi 3B+")
    dense, reuse = (predict(trace, board, each, precision=precision) for each in (None, run))
    return {
        "array": report.speedup_equal_array,
        "area": report.speedup_equal_area,
        "energy": report.energy_ratio_equal_area,
        "pi": dense.latency_ms / reuse.latency_ms,
    }


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What a stage made, from its file if there is one."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make()
        write_atomically(path, json.dumps(made, indent=1))
    return json.loads(path.read_text())


def add_options(parser: argparse.ArgumentParser, out: Path) -> None:
    """Where the drives lie, and where results go."""
    parser.add_argument("--camvid", type=Path, help="folder with the three drives")
    parser.add_argument("--drives", nargs=3, default=DRIVES, help="to learn, choose, judge")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, help="height and width")
    parser.add_argument("--out", type=Path, default=out, help="results, gone on from if there")
