"""Networks to study, and loading any other PyTorch model by name."""

from workloads.models.cifarnet import CifarNet
from workloads.models.efficientnet_lite import efficientnet_lite0
from workloads.models.errors import ModelError
from workloads.models.load import MODELS, load
from workloads.models.resnet import ResNet18
from workloads.models.weights import load_weights, read_metadata, save_weights

__all__ = [
    "MODELS",
    "CifarNet",
    "ModelError",
    "ResNet18",
    "efficientnet_lite0",
    "load",
    "load_weights",
    "read_metadata",
    "save_weights",
]
