"""Trained networks, kept between runs."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import platformdirs
import torch

from workloads.models import (
    CifarNet,
    ModelError,
    load_weights,
    note_weights,
    read_metadata,
    save_weights,
)
from workloads.streams import ImageSet, digits
from workloads.training.classifier import (
    EpochReport,
    TrainingError,
    TrainingResult,
    accuracy_of,
    train_classifier,
)

CACHE_VARIABLE = "SIMILARITY_CODESIGN_CACHE"
DIGITS_EPOCHS = 5
DIGITS_LEARNING_RATE = 2e-3
RECIPE = "2"  # raise when the network, the data or the settings below change
ACCURACY_TOLERANCE = 0.01  # how far a cached network may differ from what it scored when saved


def trained_cifarnet(
    dataset: str = "digits",
    *,
    seed: int = 0,
    progress: bool | Callable[[EpochReport], None] = False,
) -> tuple[CifarNet, float]:
    """Return CifarNet trained on scikit-learn's digits, and its test accuracy.

    Trains in well under a minute the first time, then reads the weights from `cache_dir()`.
    A cached file that is damaged, or doesn't score what it did when saved, is trained anew.

    Args:
        dataset: only 'digits', which needs no download; for CIFAR-10 run
            `python -m workloads.training --dataset cifar10`.
        seed: of the initial weights and the training.
        progress: as for `train_classifier`.

    Returns:
        The model in eval mode, and the fraction of the 360 test images classified correctly,
        measured now.

    Raises:
        TrainingError: for another dataset.
    """
    if dataset != "digits":
        raise TrainingError(
            f"trained_cifarnet knows only dataset='digits', got {dataset!r}; for CIFAR-10 run: "
            "python -m workloads.training --dataset cifar10 --archive PATH --out FILE.safetensors"
        )
    test = digits("test")
    path = cache_dir() / f"cifarnet_digits_seed{seed}_recipe{RECIPE}.safetensors"
    source = f"trained on the scanned digits, seed {seed}"
    cached = _read_cached(path, test)
    if cached is not None:
        note_weights(cached[0], source)
        return cached
    model = seeded_cifarnet(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, so that the weights don't depend on the cores
    try:
        result = train_classifier(
            model,
            digits("train"),
            test,
            epochs=DIGITS_EPOCHS,
            batch_size=32,
            learning_rate=DIGITS_LEARNING_RATE,
            augment="shift",
            seed=seed,
            progress=progress,
        )
    finally:
        torch.set_num_threads(threads)
    try:
        save_weights(model, path, metadata=training_metadata("digits", result))
    except ModelError as error:
        warnings.warn(
            f"{error}; training will be repeated next time. Set {CACHE_VARIABLE} to a writable "
            "folder",
            stacklevel=2,
        )
    note_weights(model, source)
    return model, result.accuracy


def cache_dir() -> Path:
    """Return the cache folder: $SIMILARITY_CODESIGN_CACHE, or the user's cache of this system."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("similarity-codesign")


def seeded_cifarnet(seed: int, num_classes: int = 10) -> CifarNet:
    """Return a new CifarNet whose initial weights follow from `seed` alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CifarNet(num_classes=num_classes)


def training_metadata(dataset: str, result: TrainingResult, **more: str) -> dict[str, str]:
    """Return the provenance kept with weights: data, settings, accuracy and versions."""
    return {
        "model": "cifarnet",
        "dataset": dataset,
        "epochs": str(len(result.epochs)),
        "seed": str(result.seed),
        "accuracy": f"{result.accuracy:.6f}",
        "training_s": f"{result.duration_s:.1f}",
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }


def _read_cached(path: Path, test: ImageSet) -> tuple[CifarNet, float] | None:
    """Return the cached network if it still scores what it did, else None with a warning."""
    try:
        if not path.is_file():
            return None
        model = CifarNet()
        load_weights(model, path)
        saved_accuracy = float(read_metadata(path)["accuracy"])
        accuracy = accuracy_of(model, test)
    except (ModelError, KeyError, ValueError, OSError) as error:
        warnings.warn(f"cached network is trained again: {error}", stacklevel=3)
        return None
    if not abs(accuracy - saved_accuracy) <= ACCURACY_TOLERANCE:
        warnings.warn(
            f"cached network {path} is trained again: it scored {saved_accuracy:.3f} when saved "
            f"but {accuracy:.3f} now",
            stacklevel=3,
        )
        return None
    return model, accuracy
