"""Labelled clips as a training meets them: checked, in batches, in a mirror."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from workloads.streams.clips import Clips
from workloads.traces.scores import IGNORED
from workloads.training.classifier import TrainingError
from workloads.training.tasks import Task


def batches_of(
    clips: Clips,
    order: Tensor,
    batch: int,
    device: torch.device,
    shape: tuple[int, ...] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames and labels of `batch` clips at a time; all of one shape, by default the first's."""
    for indices in order.split(batch):
        chosen: list[tuple[Tensor, Tensor]] = []
        for index in indices.tolist():
            clip = clips[index]
            given = tuple(clip.frames.shape)
            shape = shape or given
            if given != shape:
                raise TrainingError(
                    f"clips must all have frames of one shape, got {given} in clip {index} after "
                    f"{shape}; cut or resize them alike"
                )
            if clip.labels is None:
                raise TrainingError(
                    f"clip {index} must have labels, got none; leave unlabelled clips out"
                )
            chosen.append((clip.frames, clip.labels))
        frames, labels = zip(*chosen, strict=True)
        yield torch.stack(frames).to(device), torch.stack(labels).to(device)


def mirrored(frames: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Clips and their labels, about half of the clips seen in a mirror."""
    chosen = torch.rand(len(frames)) < 0.5
    frames, labels = frames.clone(), labels.clone()
    frames[chosen], labels[chosen] = frames[chosen].flip(-1), labels[chosen].flip(-1)
    return frames, labels


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for an epoch; those of neighbouring seeds and epochs are unrelated."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def check_clips(role: str, clips: Clips) -> None:
    """What would be noticed only after an epoch."""
    if len(clips) == 0:
        raise TrainingError(f"{role} must hold at least one clip, got none; give longer drives")
    if clips[0].labels is None:
        raise TrainingError(f"{role} must have labels, got none in its first clip")


def check_scored(validation: Clips, task: Task) -> None:
    """Score right answers: what labels can't be scored would cost the first epoch."""
    score = task.score()
    try:
        for _, labels in batches_of(
            validation, torch.arange(len(validation)), 1, torch.device("cpu")
        ):
            classes = labels.where(labels != IGNORED, 0).clamp(0, task.outputs - 1).flatten(0, 1)
            score.add(one_hot(classes, task.outputs).movedim(-1, 1), labels.flatten(0, 1))
        score.values()
    except TrainingError as error:
        raise TrainingError(f"validation: {error}") from error
