"""Workloads: what a PyTorch model asks of hardware, captured with its real tensors.

Shapes, traces and unfolding need no PyTorch, networks nothing but PyTorch; so each is imported when
it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workloads.errors import TraceError
from workloads.gemm import Convolution, Gemm, Layer, Quantisation

if TYPE_CHECKING:
    from workloads.capturing import capture
    from workloads.hook import GemmCall, run_with
    from workloads.models import CifarNet
    from workloads.pruning import prune
    from workloads.quantising import load_quantised, quantise, quantise_as
    from workloads.replaying import replay
    from workloads.scale_sim import read_topology
    from workloads.streams import ImageSet, cifar10, digits, video_frames
    from workloads.trace import WorkloadTrace
    from workloads.training import quantisation_aware, train_classifier, trained_cifarnet

_PLACES = {
    "CifarNet": "workloads.models",
    "GemmCall": "workloads.hook",
    "ImageSet": "workloads.streams",
    "WorkloadTrace": "workloads.trace",
    "capture": "workloads.capturing",
    "cifar10": "workloads.streams",
    "digits": "workloads.streams",
    "load_quantised": "workloads.quantising",
    "prune": "workloads.pruning",
    "quantisation_aware": "workloads.training",
    "quantise": "workloads.quantising",
    "quantise_as": "workloads.quantising",
    "read_topology": "workloads.scale_sim",
    "replay": "workloads.replaying",
    "run_with": "workloads.hook",
    "train_classifier": "workloads.training",
    "trained_cifarnet": "workloads.training",
    "video_frames": "workloads.streams",
}

__all__ = [
    "CifarNet",
    "Convolution",
    "Gemm",
    "GemmCall",
    "ImageSet",
    "Layer",
    "Quantisation",
    "TraceError",
    "WorkloadTrace",
    "capture",
    "cifar10",
    "digits",
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
