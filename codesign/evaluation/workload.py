"""What is optimised: a captured workload, and what is needed to know its accuracy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerators import ConfigError
from codesign.evaluation.inputs import CIFAR10, stream_of
from codesign.evaluation.threads import single_thread
from codesign.space.checks import among, integer_problems
from codesign.space.lookup import find_score, loaded_model
from simulator.results.weights import headline_name
from workloads import TraceError, capture, models, quantise
from workloads.capturing.capture import LabelsError
from workloads.errors import show
from workloads.models.integer_grid import is_quantised
from workloads.models.weights import dtype_of
from workloads.traces.judged import NO_CLASSES
from workloads.traces.scores import NamedScore
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import numpy as np
    import torch

    from workloads.streams import Arrays, ImageSet

PRECISIONS = ("float32", "int8")


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """A trace to judge designs on.

    Attributes:
        trace: the inputs judged on.
        model: the captured model. `None`: decisions are made on the recorded activations, and the
            accuracy is not known.
        calibration: the same model on other inputs, from which hashing takes its thresholds;
            `None` takes them from the trace itself.
        held_out: the same model on inputs that no search sees, which judge its front at the end.
        calibrate_under_reuse: hashing learns of each layer under the reuse of the layers before it,
            anew for each setting, as a model that was trained under reuse needs it. A nested
            search tries a layer alone, with no reuse before it: there it changes nothing.
        name: in words, such as "CifarNet on 100 scanned digits".
    """

    trace: WorkloadTrace
    model: torch.nn.Module | None = None
    calibration: WorkloadTrace | None = None
    held_out: WorkloadTrace | None = None
    calibrate_under_reuse: bool = False
    name: str

    def __post_init__(self) -> None:
        if self.calibrate_under_reuse and self.model is None:
            raise ConfigError(
                "Workload.model must be given with calibrate_under_reuse, got none; give the "
                "captured model, or calibrate on the recorded activations"
            )


def load_workload(
    *,
    model: str,
    inputs: str,
    images: int,
    weights: str | Path | None = None,
    calibration_images: int = 50,
    calibrate_under_reuse: bool = False,
    precision: str = "float32",
    seed: int = 0,
    first_frame: int = 0,
    every: int = 1,
    output: str | None = None,
    classes_dimension: str | int | None = None,
    score: str | None = None,
    held_out: int = 0,
    held_out_inputs: str | None = None,
) -> Workload:
    """Build a model, read its inputs and capture both.

    Args:
        model: a key of `workloads.models.MODELS`, "package.module:Class" or "file.py:Class".
        inputs: "digits" (labelled), "cifar10:PATH" (labelled), "camvid:FOLDER" (a class per pixel,
            scored by mean IoU), a sample video ("bikes", "bigbuckbunny", "carphone"), or the path
            of a video, of a folder of pictures in order of name, or of a `.npy`, `.npz` or
            `.safetensors` file of what the model takes (see `workloads.streams.array_inputs`).
            Frames and pictures are cut and resized to the model's `input_shape`; without one,
            frames to 224x224, while pictures keep their size.
        images: how many to judge on, at least 1.
        weights: a file that `workloads.models.load` reads. Without it CifarNet is trained on the
            scanned digits (and kept in the user's cache), EfficientNet-Lite0 has its ImageNet
            weights, and other models have what their constructor sets: random weights.
        calibration_images: how many more to calibrate on; 0 calibrates on the judged ones. Digits
            and CIFAR-10 take them from the training split; the others from what comes before.
        calibrate_under_reuse: see `Workload`; for weights that were trained under reuse.
        precision: "float32", the model's own, or "int8": quantised after training, with ranges from
            the calibration images. Weights that were trained on 8-bit grids bring their own.
        seed: of the training of CifarNet, of the weights that other models draw, and of the random
            numbers that a model draws as it runs; kept in the trace's provenance.
        first_frame: of a video, the first frame taken; of a folder or an array, the first picture.
        every: the distance between two frames or pictures taken; 1 takes consecutive ones.
        output: which of several outputs is judged, see `capture`.
        classes_dimension: along which its classes lie, see `capture`; a number may be a text.
        score: how labels judge answers, in place of the usual score of the inputs: a key of
            `workloads.traces.scores.SCORES`, "file.py:FUNCTION" or "package.module:FUNCTION"
            (executed).
        held_out: how many more to judge designs on at the end of a search: those that follow.
        held_out_inputs: where to take these from instead.

    Raises:
        ConfigError: the model and the inputs do not go together.
        StreamError, ModelError, TraceError: what was asked for cannot be read or captured.
    """
    counts = {"images": images, "calibration_images": calibration_images, "seed": seed}
    counts |= {"first_frame": first_frame, "every": every, "held_out": held_out}
    problems = _problems(model, inputs, weights, precision, counts)
    dimension = _dimension(classes_dimension, problems)
    if problems:
        raise ConfigError(problems)
    judged_by = None if score is None else find_score(score)
    network = loaded_model(model, weights, seed=seed)
    stream = stream_of(model, network, inputs, counts, held_out_inputs)
    if precision == "int8" and not is_quantised(network):
        assert stream.calibration is not None
        with _running(model, inputs, stream.calibration):
            network = quantise(network, stream.calibration.images)

    def captured(chosen: ImageSet | Arrays) -> WorkloadTrace:
        settings = {"output": output, "classes_dimension": dimension, "seed": seed}
        by = judged_by or stream.score
        return _captured(network, chosen, model, inputs, by, settings, usual=score is None)

    return Workload(
        trace=captured(stream.judged),
        model=network,
        calibration=captured(stream.calibration) if stream.calibration else None,
        held_out=captured(stream.held_out) if stream.held_out is not None else None,
        calibrate_under_reuse=calibrate_under_reuse,
        name=f"{_called(network)} on {images} {stream.name}",
    )


def _captured(
    network: torch.nn.Module,
    chosen: ImageSet | Arrays,
    model: str,
    inputs: str,
    score: str | NamedScore,
    settings: Mapping[str, Any],
    *,
    usual: bool,
) -> WorkloadTrace:
    """The network's trace on some inputs; labels judge it as they usually do unless it is told."""
    usual &= settings["classes_dimension"] is None
    images = chosen.images
    if images.is_floating_point():  # token ids stay whole numbers
        images = images.to(dtype_of(network))
    with _running(model, inputs, chosen), _answering(model, inputs, chosen, usual=usual):
        trace = capture(
            network,
            images,
            labels=chosen.labels,
            score=score,
            source=chosen.source,
            **settings,
        )
    if usual and trace.outputs is not None:
        _check_answers(model, inputs, trace.labels, trace.outputs.shape)
    return trace


def _problems(
    model: str, inputs: str, weights: str | Path | None, precision: str, counts: Mapping[str, int]
) -> list[str]:
    """Rules over what a workload is made of."""
    least = {"calibration_images": 0, "first_frame": 0, "seed": 0, "held_out": 0}
    problems = integer_problems("", counts, least)
    problems += among(PRECISIONS)["rule"](precision, "precision")
    if precision == "int8" and counts["calibration_images"] == 0:
        problems.append(
            "calibration_images must be at least 1 for precision='int8', got 0; use the default"
        )
    problems += _combination_problems(model, inputs, weights)
    first, every = counts["first_frame"], counts["every"]
    if (first, every) != (0, 1) and inputs.startswith(("digits", CIFAR10)):
        problems.append(
            f"first_frame and every must be 0 and 1 for inputs={inputs!r}, got {first!r} and "
            f"{every!r}; they choose frames of a video or pictures"
        )
    return problems


def _dimension(given: str | int | None, problems: list[str]) -> str | int | None:
    """A dimension of classes, also as a command line or a study file writes it."""
    if isinstance(given, str) and re.fullmatch(r"-?\d{1,3}", given):
        return int(given)
    whole = isinstance(given, int) and not isinstance(given, bool)
    if given is not None and given != NO_CLASSES and not whole:
        problems.append(
            f"classes_dimension must be a whole number or {NO_CLASSES!r}, got {show(given)}; use "
            "-1 for the last dimension"
        )
    return given


@contextmanager
def _answering(
    model: str, inputs: str, chosen: ImageSet | Arrays, *, usual: bool
) -> Iterator[None]:
    """Labels that don't fit the answers are told with the inputs that they come with."""
    try:
        yield
    except LabelsError as error:
        if usual:
            _check_answers(model, inputs, chosen.labels, error.outputs)
        raise


def _check_answers(
    model: str, inputs: str, labels: np.ndarray | torch.Tensor | None, outputs: tuple[int, ...]
) -> None:
    """Labels of pixels want an answer for each pixel."""
    if labels is None or labels.ndim == 1:
        return
    if len(outputs) != 4 or (outputs[0], *outputs[2:]) != tuple(labels.shape):
        raise ConfigError(
            f"model {model!r} must answer {inputs!r} with logits of shape (images, classes, "
            f"{labels.shape[1]}, {labels.shape[2]}), got {outputs}; use one that gives every "
            "pixel a class, such as 'resnet18_scenes'"
        )


@contextmanager
def _running(model: str, inputs: str, chosen: ImageSet | Arrays) -> Iterator[None]:
    """Run the network on one thread; what its code raises becomes one error."""
    try:
        with single_thread():
            yield
    except (models.ModelError, TraceError, ConfigError, OSError):
        raise
    except Exception as error:  # the user's code may raise anything
        raise models.ModelError(
            f"model {model!r} must run on inputs {inputs!r} of shape "
            f"{tuple(chosen.images.shape)}, got {type(error).__name__}: {error}; give inputs "
            "of its shape, or check its code"
        ) from error


def _called(network: torch.nn.Module) -> str:
    """A model's name; weights that are or may be random are always told."""
    weights = models.weights_source(network)
    return headline_name({"model": f".{type(network).__name__}", "weights": weights})


def _combination_problems(model: str, inputs: str, weights: str | Path | None) -> list[str]:
    """Rules over model and inputs together."""
    if model == "cifarnet" and inputs.startswith(CIFAR10) and weights is None:
        return [
            f"weights must be given for model='cifarnet' with inputs={inputs!r}, got none; train "
            f"them: python -m workloads.training --dataset cifar10 "
            f"--archive {inputs.removeprefix(CIFAR10)} --out FILE.safetensors"
        ]
    if model == "efficientnet_lite0" and (inputs == "digits" or inputs.startswith(CIFAR10)):
        return [
            f"inputs must be 224x224 images for model='efficientnet_lite0', got {inputs!r}; use "
            "'bikes' or the path of a video"
        ]
    return []
