"""Labels by a trained network, where people made none."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from workloads.models.weights import weights_source
from workloads.streams.clips import ClipSet
from workloads.streams.drives import Size, shrunk_pixels, thick_labels
from workloads.streams.image_set import normalisation
from workloads.streams.lanes import LANE_CLASSES
from workloads.training.classifier import TrainingError


def lane_labels_by(teacher: nn.Module, clips: ClipSet, *, size: Size) -> ClipSet:
    """Label the lanes of clips by what a teacher answers, and bring both to `size`.

    Hand-made lane masks of *video* that may be used freely are few, so a network learns here from
    TwinLiteNet with its published weights (Che et al., 2023, trained on BDD100K). An F1 against
    these labels says how well the network does what the teacher does, on frames it was not trained
    on; it says nothing of the teacher's own errors. Give the F1 against hand-made masks (`tvtlane`,
    `lane_frames`) beside it, and the teacher's own against the same.

    Args:
        teacher: maps frames at the clips' size to `(n, 2, height, width)` logits, such as
            `load("twinlitenet", weights)`; it says how its pixels are normalised (`normalise`).
        clips: frames at the size that the teacher takes; labels they have are dropped.
        size: (height, width) of the clips returned.

    Raises:
        TrainingError: if the teacher answers in another shape, or sees no lane in any frame.
    """
    to_input = normalisation(getattr(teacher, "normalise", "unit"))
    device = next((weights.device for weights in teacher.parameters()), torch.device("cpu"))
    pixels, labels = [], []
    for frame in clips.pixels.split(1):
        with torch.no_grad():
            answer = teacher(to_input(frame.float()).to(device))
        if answer.shape != (1, len(LANE_CLASSES), *frame.shape[2:]):
            raise TrainingError(
                f"a teacher of lanes must answer frames of {tuple(frame.shape)} in shape "
                f"{(1, len(LANE_CLASSES), *frame.shape[2:])}, got {tuple(answer.shape)}; give one "
                "that tells lanes from all else"
            )
        labels.append(thick_labels(answer.argmax(dim=1).cpu().to(torch.uint8), size))
        pixels.append(shrunk_pixels(frame, size))
    found, name = torch.cat(labels), type(teacher).__name__
    if not bool((found == LANE_CLASSES.index("lane")).any()):
        raise TrainingError(
            f"{name} must see lanes in {clips.source}, got none in {len(found)} frames; give other "
            "frames, or a teacher's trained weights"
        )
    weights = weights_source(teacher)
    return replace(
        clips,
        pixels=torch.cat(pixels),
        labels=found,
        classes=LANE_CLASSES,
        source=f"{clips.source}, labelled by {name}{f' ({weights})' if weights else ''}",
    )
