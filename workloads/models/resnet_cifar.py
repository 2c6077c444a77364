"""ResNet-20 and ResNet-56 for CIFAR-10."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from workloads.models.initial import he_normal


class CifarBlock(nn.Module):
    """Two 3x3 convolutions, and a shortcut without parameters (He et al., option A).

    Where the block halves the size and doubles the channels, the shortcut takes every second
    position and adds zero channels, half of them on either side.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(n, inputs, h, w)` to `(n, outputs, h / stride, w / stride)`."""
        result = torch.relu(self.bn1(self.conv1(features)))
        shortcut = features[:, :, :: self.stride, :: self.stride]
        if self.padding:
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        return torch.relu(self.bn2(self.conv2(result)) + shortcut)


class CifarResNet(nn.Module):
    """A residual network for 32x32 images (He et al., CVPR 2016, section 4.2), random weights.

    Modules and parameters are called as in the checkpoints of Y. Idelbayev's
    `pytorch_resnet_cifar10`, so that they load. Those take pixels normalised as 'imagenet'.

    Args:
        blocks: in each of the three stages; the network has 6 * blocks + 2 layers.
        num_classes: outputs of the last layer.
    """

    input_shape = (3, 32, 32)
    normalise = "imagenet"

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks)
        self.layer2 = self._stage(16, 32, blocks)
        self.layer3 = self._stage(32, 64, blocks)
        self.linear = nn.Linear(64, num_classes)
        he_normal(self)

    def _stage(self, inputs: int, outputs: int, blocks: int) -> nn.Sequential:
        first = CifarBlock(inputs, outputs, outputs // inputs)
        return nn.Sequential(first, *(CifarBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images to `(n, num_classes)`."""
        features = torch.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.linear(features.mean(dim=(2, 3)))


class ResNet20(CifarResNet):
    """ResNet-20 for CIFAR-10; random weights.

    Args:
        num_classes: outputs of the last layer.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(3, num_classes)


class ResNet56(CifarResNet):
    """ResNet-56 for CIFAR-10; random weights.

    Args:
        num_classes: outputs of the last layer.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(9, num_classes)
