"""Networks to study, and loading any other PyTorch model by name."""

from workloads.models.alexnet import AlexNet
from workloads.models.cifarnet import CifarNet
from workloads.models.efficientnet_lite import efficientnet_lite0
from workloads.models.errors import ModelError
from workloads.models.espnet import ESPNet
from workloads.models.load import MODELS, load
from workloads.models.mobilenet import MobileNetV2
from workloads.models.psanet import PSANet, PSANet50
from workloads.models.resnest import ResNeSt50, ResNeStSegmenter
from workloads.models.resnet import ResNet18, ResNet50
from workloads.models.resnet38 import ResNet38
from workloads.models.resnet_cifar import ResNet20, ResNet56
from workloads.models.resnet_segmenter import ResNet18Segmenter
from workloads.models.squeezenet import SqueezeNet10, SqueezeNet11
from workloads.models.twinlitenet import TwinLiteNet
from workloads.models.vgg import VGG19, CifarVGG16
from workloads.models.weights import (
    load_weights,
    note_weights,
    read_metadata,
    save_weights,
    weights_source,
)

__all__ = [
    "MODELS",
    "VGG19",
    "AlexNet",
    "CifarNet",
    "CifarVGG16",
    "ESPNet",
    "MobileNetV2",
    "ModelError",
    "PSANet",
    "PSANet50",
    "ResNeSt50",
    "ResNeStSegmenter",
    "ResNet18",
    "ResNet18Segmenter",
    "ResNet20",
    "ResNet38",
    "ResNet50",
    "ResNet56",
    "SqueezeNet10",
    "SqueezeNet11",
    "TwinLiteNet",
    "efficientnet_lite0",
    "load",
    "load_weights",
    "note_weights",
    "read_metadata",
    "save_weights",
    "weights_source",
]
