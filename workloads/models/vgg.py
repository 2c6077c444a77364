"""VGG-19 for ImageNet, and VGG-16 for CIFAR-10."""

from __future__ import annotations

import torch
from torch import nn

from workloads.models.initial import he_normal
from workloads.models.shipped import load_shipped
from workloads.streams.cifar_archive import CIFAR10_CLASSES

# Output channels of the 3x3 convolutions in each of the five stages.
_STAGES = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
_STAGES_OF_16 = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


class VGG19(nn.Module):
    """VGG-19 (Simonyan and Zisserman, ICLR 2015, table 1, column E), random weights.

    Sixteen 3x3 convolutions and three linear layers. Modules and parameters are called as in
    torchvision's `vgg19`, so that its weights load.

    Args:
        num_classes: outputs of the last layer.
    """

    input_shape = (3, 224, 224)
    normalise = "imagenet"

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in _STAGES:
            for outputs in stage:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(2, stride=2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )
        he_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images, 32 pixels or more a side, to `(n, num_classes)`."""
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


class CifarVGG16(nn.Module):
    """VGG-16 (the same, column D) for 32x32 images, with batch normalisation, random weights.

    Thirteen 3x3 convolutions without bias, whose modules are called as in torchvision's
    `vgg16_bn`, and one linear layer in place of three, as is usual for CIFAR-10.

    Args:
        num_classes: outputs of the last layer.
    """

    input_shape = (3, 32, 32)
    normalise = "imagenet"

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.class_names = CIFAR10_CLASSES if num_classes == len(CIFAR10_CLASSES) else ()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in _STAGES_OF_16:
            for outputs in stage:
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                ]
                inputs = outputs
            layers.append(nn.MaxPool2d(2, stride=2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, num_classes)
        he_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images, 32 pixels or more a side, to `(n, num_classes)`."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))


def vgg16_cifar10(*, pretrained: bool = True, num_classes: int = 10) -> CifarVGG16:
    """`CifarVGG16` with this project's own weights of CIFAR-10, in eval mode.

    They have 7 bits each on disk and float32 in the model; `vgg16_cifar10.md` beside them is their
    card.

    Args:
        pretrained: load these weights; False leaves random ones.
        num_classes: of the answer; these weights answer 10.
    """
    model = CifarVGG16(num_classes)
    if pretrained:
        load_shipped(model, "vgg16_cifar10.safetensors.gz", "CIFAR-10 weights of this project")
    return model.eval()
