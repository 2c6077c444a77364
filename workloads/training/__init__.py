"""Training: small classifiers, and networks on video whose frames shall look alike to reuse."""

from workloads.training.cached import cache_dir, trained_cifarnet
from workloads.training.classifier import (
    EpochReport,
    TrainingError,
    TrainingResult,
    accuracy_of,
    train_classifier,
)
from workloads.training.plan import SimilarityEpoch, TrainingPlan
from workloads.training.quantised import quantisation_aware
from workloads.training.similarity import (
    SimilarityResult,
    score_of,
    similarity_aware_training,
)

__all__ = [
    "EpochReport",
    "SimilarityEpoch",
    "SimilarityResult",
    "TrainingError",
    "TrainingPlan",
    "TrainingResult",
    "accuracy_of",
    "cache_dir",
    "quantisation_aware",
    "score_of",
    "similarity_aware_training",
    "train_classifier",
    "trained_cifarnet",
]
