"""AlexNet, in the layout that torchvision trained."""

from __future__ import annotations

import torch
from torch import nn

from workloads.models.initial import he_normal


class AlexNet(nn.Module):
    """AlexNet for one device (Krizhevsky, "One weird trick", arXiv:1404.5997), random weights.

    Modules and parameters are called as in torchvision's `alexnet`, so that its weights load. This
    is the AlexNet of Deep Reuse's Table II: K=363 and M=64 in conv1, K=1600 and M=192 in conv2.

    Args:
        num_classes: outputs of the last layer.
    """

    input_shape = (3, 224, 224)
    normalise = "imagenet"

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )
        he_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images, 63 pixels or more a side, to `(n, num_classes)`."""
        return self.classifier(self.avgpool(self.features(images)).flatten(1))
