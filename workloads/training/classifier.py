"""A plain training loop for image classifiers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from workloads.errors import InputError
from workloads.models.weights import dtype_of, note_weights
from workloads.rules import integer, number, one_of, problems, refuse
from workloads.streams import ImageSet
from workloads.training.augment import AUGMENTATIONS, augmented
from workloads.training.progress import epoch_progress

OPTIMIZERS = ("adam", "sgd")


class TrainingError(InputError):
    """Training that can't be started or went wrong; says where and what to change."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """How one epoch went.

    Attributes:
        epoch: 1 for the first.
        epochs: how many there will be.
        loss: mean cross-entropy over the epoch's (augmented) images, in nats.
        accuracy: fraction of them classified correctly while training, 0 to 1.
        duration_s: wall-clock seconds of this epoch.
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What training achieved; the model itself was trained in place.

    Attributes:
        accuracy: fraction of test images classified correctly, 0 to 1, measured once at the end.
        epochs: one report per epoch.
        seed: of shuffling, augmentation and dropout.
        duration_s: wall-clock seconds, testing included.
    """

    accuracy: float
    epochs: tuple[EpochReport, ...]
    seed: int
    duration_s: float


def train_classifier(
    model: nn.Module,
    train: ImageSet,
    test: ImageSet,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    optimizer: str = "adam",
    weight_decay: float = 0.0,
    augment: str = "none",
    seed: int = 0,
    progress: bool | Callable[[EpochReport], None] = False,
) -> TrainingResult:
    """Train a classifier in place, on the CPU or wherever its parameters are.

    Cross-entropy loss; the learning rate falls to zero along half a cosine (Loshchilov and
    Hutter, SGDR, ICLR 2017, without restarts). The seed fixes everything but the initial weights;
    PyTorch's random state is left as it was. Results repeat for the same machine and threads.

    Args:
        model: maps `(n, 3, h, w)` to `(n, classes)` logits; left in eval mode.
        train: images with labels to learn from.
        test: images with labels for the final accuracy; never used for a choice.
        epochs: passes over `train`, >= 1.
        batch_size: images per step, >= 1; the last batch of an epoch may be smaller.
        learning_rate: the first step's, > 0.
        optimizer: 'adam', or 'sgd' with Nesterov momentum 0.9.
        weight_decay: L2 penalty given to the optimiser, >= 0.
        augment: 'none', 'shift' or 'shift_flip'.
        seed: of shuffling, augmentation and dropout.
        progress: a function called after every epoch; True shows a bar if stderr is a terminal.

    Raises:
        TrainingError: for arguments out of range, and if loss or weights stop being finite,
            naming epoch and step.
    """
    _check(train, test, epochs, batch_size, learning_rate, weight_decay, optimizer, augment)
    check_precision(model)
    started = time.perf_counter()
    stepper = _optimizer(model, optimizer, learning_rate, weight_decay)
    steps = math.ceil(len(train) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, epochs * steps)
    generator = torch.Generator().manual_seed(seed)
    reports = []
    with torch.random.fork_rng(), epoch_progress(progress, epochs) as tell:
        torch.manual_seed(seed)  # dropout draws from PyTorch's global generator
        for epoch in range(1, epochs + 1):
            epoch_started = time.perf_counter()
            model.train()
            loss_sum, correct = 0.0, 0
            batches = _shuffled_batches(train, batch_size, augment, generator)
            for step, (images, labels) in enumerate(batches, start=1):
                loss, hits = _step(model, stepper, images, labels)
                if not math.isfinite(loss):
                    raise diverged("loss", epoch, step, learning_rate)
                schedule.step()
                loss_sum += loss * len(labels)
                correct += hits
                tell.step(epoch - 1 + step / steps, loss)
            if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
                raise diverged("weights", epoch, step, learning_rate)
            finished = EpochReport(
                epoch=epoch,
                epochs=epochs,
                loss=loss_sum / len(train),
                accuracy=correct / len(train),
                duration_s=time.perf_counter() - epoch_started,
            )
            reports.append(finished)
            tell.epoch(finished)
        accuracy = accuracy_of(model, test)
    note_weights(model, f"trained {epochs} epochs on {train.source}, seed {seed}")
    return TrainingResult(
        accuracy=accuracy,
        epochs=tuple(reports),
        seed=seed,
        duration_s=time.perf_counter() - started,
    )


def accuracy_of(model: nn.Module, test: ImageSet, *, batch_size: int = 64) -> float:
    """Return the fraction of images classified correctly, 0 to 1; leaves the model in eval mode.

    Raises:
        TrainingError: if the images have no labels.
    """
    if test.labels is None:
        raise TrainingError(f"accuracy needs labels, and {test.source} has none")
    device = device_of(model)
    model.eval()
    correct = 0
    with torch.no_grad():
        for batch in test.batches(batch_size):
            assert batch.labels is not None
            predicted = model(batch.images.to(device, dtype_of(model))).argmax(dim=1).cpu()
            correct += int((predicted == batch.labels).sum())
    return correct / len(test)


def _step(
    model: nn.Module, stepper: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> tuple[float, int]:
    """Take one gradient step; return the loss and the number of correct predictions."""
    device = device_of(model)
    images, labels = images.to(device, dtype_of(model)), labels.to(device)
    logits = model(images)
    loss = nn.functional.cross_entropy(logits, labels)
    stepper.zero_grad(set_to_none=True)
    loss.backward()
    stepper.step()
    return float(loss.detach()), int((logits.detach().argmax(dim=1) == labels).sum())


def diverged(what: str, epoch: int, step: int, learning_rate: float) -> TrainingError:
    """The error for a loss or weights that are no numbers any more."""
    return TrainingError(
        f"{what} must stay finite, got NaN or infinity at epoch {epoch}, step {step} "
        f"with learning_rate={learning_rate}; use a lower learning_rate"
    )


def _shuffled_batches(
    train: ImageSet, batch_size: int, augment: str, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    assert train.labels is not None
    for indices in torch.randperm(len(train), generator=generator).split(batch_size):
        yield augmented(train.images[indices], augment, generator), train.labels[indices]


def _optimizer(
    model: nn.Module, name: str, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    match name:
        case "adam":
            return torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
        case "sgd":
            return torch.optim.SGD(
                model.parameters(),
                lr=learning_rate,
                weight_decay=weight_decay,
                momentum=0.9,
                nesterov=True,
            )
        case _:
            raise TrainingError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def device_named(name: str) -> torch.device:
    """Where to train; `auto` is a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(
            f"device must be auto or one that PyTorch has here, got {name!r} "
            f"({str(error).splitlines()[0]}); use auto or cpu"
        ) from error


def check_precision(model: nn.Module) -> None:
    """Steps of training are lost in weights of 16 bits, which round them away.

    Raises:
        TrainingError: a weight that learns has 16 bits.
    """
    short = {
        str(weight.dtype).removeprefix("torch.")
        for weight in model.parameters()
        if weight.requires_grad and weight.is_floating_point() and weight.dtype.itemsize < 4
    }
    if short:
        raise TrainingError(
            f"model must have float32 or float64 weights to be trained, got "
            f"{' and '.join(sorted(short))}; call model.float() first, and make it 16 bits after"
        )


def _check(
    train: ImageSet,
    test: ImageSet,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    optimizer: str,
    augment: str,
) -> None:
    """Raise a TrainingError listing every argument of `train_classifier` that is out of range."""
    given = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "optimizer": optimizer,
        "augment": augment,
    }
    violations = problems("", given, _RULES)
    for role, images in (("train", train), ("test", test)):
        if images.labels is None:
            violations.append(f"{role} must have labels, and {images.source} has none")
        elif images.labels.ndim != 1:
            violations.append(f"{role} must have a label per image, got one per pixel")
    if train.classes != test.classes:
        violations.append(
            f"train and test must have the same classes, got {list(train.classes)} "
            f"and {list(test.classes)}"
        )
    refuse(violations, TrainingError)


_RULES = {
    "epochs": integer(1),
    "batch_size": integer(1),
    "learning_rate": number(above=0, fix="try 0.01"),
    "weight_decay": number(fix="use 0 for none"),
    "optimizer": one_of(OPTIMIZERS),
    "augment": one_of(AUGMENTATIONS),
}
