"""SqueezeNet 1.0 and 1.1."""

from __future__ import annotations

import torch
from torch import nn

from workloads.models.initial import he_normal


class Fire(nn.Module):
    """A 1x1 convolution, then 1x1 and 3x3 ones side by side (SqueezeNet, section 3.2)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(n, inputs, h, w)` to `(n, 2 * expanded, h, w)`."""
        squeezed = torch.relu(self.squeeze(features))
        both = [torch.relu(self.expand1x1(squeezed)), torch.relu(self.expand3x3(squeezed))]
        return torch.cat(both, dim=1)


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


class _SqueezeNet(nn.Module):
    """What both versions share: the classifier is a convolution and an average."""

    input_shape = (3, 224, 224)
    normalise = "imagenet"

    def __init__(self, features: nn.Sequential, num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Conv2d(512, num_classes, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
        )
        he_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images to `(n, num_classes)`."""
        return self.classifier(self.features(images)).flatten(1)


class SqueezeNet10(_SqueezeNet):
    """SqueezeNet 1.0 (Iandola et al., arXiv:1602.07360, table 1), random weights.

    Modules and parameters are called as in torchvision's `squeezenet1_0`, so that its weights load.

    Args:
        num_classes: outputs of the last layer.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        features = nn.Sequential(
            nn.Conv2d(3, 96, 7, stride=2),
            nn.ReLU(inplace=True),
            _pool(),
            Fire(96, 16, 64),
            Fire(128, 16, 64),
            Fire(128, 32, 128),
            _pool(),
            Fire(256, 32, 128),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            _pool(),
            Fire(512, 64, 256),
        )
        super().__init__(features, num_classes)


class SqueezeNet11(_SqueezeNet):
    """SqueezeNet 1.1: the authors' later one, which pools earlier; 2.4 times fewer operations.

    Modules and parameters are called as in torchvision's `squeezenet1_1`, so that its weights load.

    Args:
        num_classes: outputs of the last layer.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(inplace=True),
            _pool(),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            _pool(),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            _pool(),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        super().__init__(features, num_classes)
