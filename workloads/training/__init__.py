"""Training small classifiers, so that accuracy under reuse can be measured."""

from workloads.training.cached import cache_dir, trained_cifarnet
from workloads.training.classifier import (
    EpochReport,
    TrainingError,
    TrainingResult,
    accuracy_of,
    train_classifier,
)
from workloads.training.quantised import quantisation_aware

__all__ = [
    "EpochReport",
    "TrainingError",
    "TrainingResult",
    "accuracy_of",
    "cache_dir",
    "quantisation_aware",
    "train_classifier",
    "trained_cifarnet",
]
