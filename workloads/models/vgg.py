"""VGG-19."""

from __future__ import annotations

import torch
from torch import nn

from workloads.models.initial import he_normal

# Output channels of the 3x3 convolutions in each of the five stages.
_STAGES = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)


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
