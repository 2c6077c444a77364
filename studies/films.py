"""What a study of streams needs: a network, its frames, and to follow them one by one."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from accelerators import Accelerator
from simulator import ReusePolicy, ReuseRun, SimulationReport, calibrate, decide, simulate
from workloads import ImageSet, WorkloadTrace, capture, models, video_frames
from workloads.streams import camvid

CAMVID_SIZE = (240, 320)


@dataclass(frozen=True, kw_only=True)
class Film:
    """A network and its frames.

    Attributes:
        name: in words.
        model: the network.
        layers: those that are reused, and their L: kernel rows or channels that lie together.
        calibration: frames before the judged ones.
        frames: judged, consecutive.
        other: frames of another place.
        rate_hz: of the frames.
    """

    name: str
    model: torch.nn.Module
    layers: dict[str, int]
    calibration: ImageSet
    frames: ImageSet
    other: ImageSet
    rate_hz: float

    def trace(self, frames: ImageSet) -> WorkloadTrace:
        """The network on some frames; a class per pixel is scored by mean IoU."""
        score = "accuracy" if frames.labels is None else "miou"
        return capture(self.model, frames.images, labels=frames.labels, score=score)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where labelled frames and trained weights lie; all of them, or none."""
    parser.add_argument("--camvid", type=Path, help="CamVid folder of consecutive frames, 15 Hz")
    parser.add_argument("--other", type=Path, help="CamVid folder of another drive")
    parser.add_argument("--weights", type=Path, help="ESPNet's, trained on CamVid")


def film(given: argparse.Namespace, frames: int, other: int, calibration: int = 2) -> Film:
    """ESPNet on CamVid if its data are given, else EfficientNet-Lite0 on a sample video."""
    asked = [given.camvid, given.other, given.weights]
    if any(asked) and not all(asked):
        raise SystemExit("--camvid, --other and --weights must be given together")
    network: dict
    if given.camvid:
        consecutive, elsewhere = (
            camvid(folder, step=1, size=CAMVID_SIZE, limit=count, normalise="espnet_camvid").images(
                count
            )
            for folder, count in ((given.camvid, calibration + frames), (given.other, other))
        )
        network = {
            "name": f"ESPNet at {CAMVID_SIZE[0]}x{CAMVID_SIZE[1]} on CamVid",
            "model": models.load("espnet", given.weights),
            "layers": dict.fromkeys(
                ("encoder.level2_0.c1.conv", "encoder.level3_0.c1.conv", "conv.conv"), 9
            ),
            "rate_hz": 15,
        }
    else:
        consecutive, elsewhere = (
            video_frames("bikes", size=(224, 224), count=count, start=start)
            for count, start in ((calibration + frames, 0), (other, 200))
        )
        network = {
            "name": "EfficientNet-Lite0 on bikes",
            "model": models.load("efficientnet_lite0"),
            "layers": {f"_blocks.{block}._expand_conv": 8 for block in (1, 5, 10)},
            "rate_hz": 25,
        }
    return Film(
        calibration=consecutive.take(calibration),
        frames=consecutive.batch(calibration, frames),
        other=elsewhere,
        **network,
    )


@dataclass(frozen=True, kw_only=True)
class Served:
    """One frame; of all reused layers together, by sub-vector.

    Ages are in frames of the stream, since the reused result was computed; 0 without reuse.
    """

    reuse_rate: float
    remaining_ratio: float
    mean_age: float
    oldest: int
    agreement: float
    accuracy: float | None
    dense_accuracy: float | None

    @classmethod
    def of(cls, run: ReuseRun) -> "Served":
        """Add the layers up."""
        made = [each for each in run.decisions.values() if each is not None]
        counts = np.zeros(max(each.shared.age_counts.size for each in made), np.int64)
        for each in made:
            counts[: each.shared.age_counts.size] += each.shared.age_counts
        total, old = int(counts.sum()), int(counts[1:].sum())
        assert run.agreement is not None
        return cls(
            reuse_rate=old / total,
            remaining_ratio=sum(each.shared.total_clusters for each in made) / total,
            mean_age=float(counts @ np.arange(counts.size)) / old if old else 0.0,
            oldest=counts.size - 1,
            agreement=run.agreement,
            accuracy=run.accuracy,
            dense_accuracy=run.dense_accuracy,
        )


@dataclass(frozen=True, kw_only=True)
class Followed:
    """What a setting did with a stream, and its last frame on the design with its cache."""

    frames: list[Served]
    report: SimulationReport | None

    def mean(self, attribute: str, first: int = 0, last: int | None = None) -> float | None:
        """Over frames; `None` where it isn't known."""
        values = [getattr(each, attribute) for each in self.frames[first:last]]
        return None if None in values else float(np.mean(values))


def follow(
    shown: Film,
    order: Sequence[ImageSet],
    policies: Mapping[str, ReusePolicy],
    designs: Mapping[str, Accelerator | None],
) -> dict[str, Followed]:
    """Send single frames, in order, through each policy; a frame is captured once.

    Args:
        shown: the network, and what calibrates the policies, which must need the same of it.
        order: the frames.
        policies: by name; each starts from nothing.
        designs: by the same names, what the last frame is timed on; `None`: on nothing.
    """
    states = calibrate(shown.trace(shown.calibration), next(iter(policies.values())))
    served: dict[str, list[Served]] = {name: [] for name in policies}
    runs: dict[str, ReuseRun] = {}
    for frame in order:
        trace = shown.trace(frame)
        for name, chosen in policies.items():
            memory = runs[name].memory if name in runs else None
            runs[name] = decide(
                trace, chosen, model=shown.model, layer_errors=False, memory=memory,
                calibration=states if memory is None else None,
            )  # fmt: skip
            served[name].append(Served.of(runs[name]))
    reports = {
        name: None if design is None else simulate(trace, design, runs[name])
        for name, design in designs.items()
    }
    return {name: Followed(frames=served[name], report=reports[name]) for name in policies}
