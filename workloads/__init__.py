"""Workloads: what a PyTorch model asks of hardware, captured with its real tensors.

Shapes, traces and unfolding need no PyTorch, networks nothing but PyTorch; so each is imported when
it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workloads.errors import TraceError
from workloads.traces.after import Affine, After, Step
from workloads.traces.layer import Convolution, Gemm, Layer, Quantisation

if TYPE_CHECKING:
    from workloads.capturing.capture import capture
    from workloads.capturing.hook import GemmCall, run_with
    from workloads.capturing.replaying import replay
    from workloads.compressing.clustering import few_valued
    from workloads.compressing.pruning import prune
    from workloads.compressing.quantising import quantise, quantise_as
    from workloads.models import CifarNet
    from workloads.models.quantised_weights import load_quantised
    from workloads.streams import ImageSet, cifar10, digits, video_frames
    from workloads.traces.scale_sim import read_topology
    from workloads.traces.trace import WorkloadTrace
    from workloads.training import quantisation_aware, train_classifier, trained_cifarnet

_PLACES = {
    "CifarNet": "workloads.models",
    "GemmCall": "workloads.capturing.hook",
    "ImageSet": "workloads.streams",
    "WorkloadTrace": "workloads.traces.trace",
    "capture": "workloads.capturing.capture",
    "cifar10": "workloads.streams",
    "digits": "workloads.streams",
    "few_valued": "workloads.compressing.clustering",
    "load_quantised": "workloads.models.quantised_weights",
    "prune": "workloads.compressing.pruning",
    "quantisation_aware": "workloads.training",
    "quantise": "workloads.compressing.quantising",
    "quantise_as": "workloads.compressing.quantising",
    "read_topology": "workloads.traces.scale_sim",
    "replay": "workloads.capturing.replaying",
    "run_with": "workloads.capturing.hook",
    "train_classifier": "workloads.training",
    "trained_cifarnet": "workloads.training",
    "video_frames": "workloads.streams",
}

__all__ = [
    "Affine",
    "After",
    "CifarNet",
    "Convolution",
    "Gemm",
    "GemmCall",
    "ImageSet",
    "Layer",
    "Quantisation",
    "Step",
    "TraceError",
    "WorkloadTrace",
    "capture",
    "cifar10",
    "digits",
    "few_valued",
    "load_quantised",
    "prune",
    "quantisation_aware",
    "quantise",
    "quantise_as",
    "read_topology",
    "replay",
    "run_with",
    "train_classifier",
    "trained_cifarnet",
    "video_frames",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
