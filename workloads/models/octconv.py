"""Octave convolutions: part of the channels live at half the size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from workloads.models.errors import ModelError
from workloads.models.initial import he_normal
from workloads.rules import number, problems, refuse

# Channels at full size, and those at half, of which there may be none.
Octaves = tuple[torch.Tensor, torch.Tensor | None]

_ALPHA = number(below=1, fix="use 0.5 for half of the channels")


def low_channels(channels: int, alpha: float) -> int:
    """How many of the channels live at half the size: their share, rounded down."""
    return int(alpha * channels)


def octave_ratio(alpha: float) -> float:
    """Multiplications of an inner octave convolution against the plain one of as many channels.

    The paths hold (1-a)^2, a(1-a)/4 twice, and a^2/4 of them: 1 - (3/4) a (2 - a).
    """
    return 1 - 0.75 * alpha * (2 - alpha)


class OctaveConv2d(nn.Module):
    """A 3x3 convolution in octaves, of stride 1, that keeps sizes (Chen et al., ICCV 2019).

    Four paths, each a convolution of its own: high to high, high to low (of 2x2 means), low to high
    (each result repeated 2x2) and low to low. The first and the last layer have two of them.

    Args:
        inputs: channels of both sizes.
        outputs: likewise.
        alpha_in: share of the inputs at half the size, 0 to below 1; 0 for a first layer.
        alpha_out: share of the outputs, likewise; 0 for a last layer.
    """

    def __init__(self, inputs: int, outputs: int, alpha_in: float, alpha_out: float) -> None:
        super().__init__()
        low_in, low_out = low_channels(inputs, alpha_in), low_channels(outputs, alpha_out)
        high_in, high_out = inputs - low_in, outputs - low_out

        def path(given: int, made: int) -> nn.Conv2d | None:
            return nn.Conv2d(given, made, 3, padding=1, bias=False) if given and made else None

        self.high_to_high, self.high_to_low = path(high_in, high_out), path(high_in, low_out)
        self.low_to_high, self.low_to_low = path(low_in, high_out), path(low_in, low_out)

    def forward(self, octaves: Octaves) -> Octaves:
        """`(n, high, h, w)` and `(n, low, h / 2, w / 2)` to the same of the outputs."""
        high, low = octaves
        assert self.high_to_high is not None
        made, made_low = self.high_to_high(high), None
        if self.low_to_high is not None:
            made = made + enlarged(self.low_to_high(low))
        if self.high_to_low is not None:
            made_low = self.high_to_low(functional.avg_pool2d(high, 2))
        if self.low_to_low is not None:
            made_low = made_low + self.low_to_low(low)
        return made, made_low


def enlarged(features: torch.Tensor) -> torch.Tensor:
    """Every value repeated 2x2."""
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")


class OctaveNorm(nn.Module):
    """Batch normalisation of both sizes.

    Args:
        channels: of both.
        alpha: share of those at half the size.
    """

    def __init__(self, channels: int, alpha: float) -> None:
        super().__init__()
        low = low_channels(channels, alpha)
        self.high = nn.BatchNorm2d(channels - low)
        self.low = nn.BatchNorm2d(low) if low else None

    def forward(self, octaves: Octaves) -> Octaves:
        """Each size on its own; same shapes."""
        high, low = octaves
        return self.high(high), None if self.low is None else self.low(low)


class OctaveBlock(nn.Module):
    """`CifarBlock` in octaves.

    Where the block halves the size, 2x2 means are taken before the first convolution in place of
    its stride, as strided paths would not lie over each other (section 3.3 of the paper), so that
    every convolution has the ratio of `octave_ratio`. The shortcut takes every second position, as
    in the plain network. In the last block all outputs are of full size; channels of its shortcut
    that were at half are enlarged.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, alpha: float, *, last: bool = False
    ) -> None:
        super().__init__()
        alpha_out = 0.0 if last else alpha
        self.conv1 = OctaveConv2d(inputs, outputs, alpha, alpha)
        self.bn1 = OctaveNorm(outputs, alpha)
        self.conv2 = OctaveConv2d(outputs, outputs, alpha, alpha_out)
        self.bn2 = OctaveNorm(outputs, alpha_out)
        self.stride, self.last = stride, last
        low = low_channels(outputs, alpha) - low_channels(inputs, alpha)
        self.padding = (outputs - inputs - low, low)

    def forward(self, octaves: Octaves) -> Octaves:
        """Octaves of `inputs` channels to those of `outputs`, `stride` times smaller."""
        given = octaves
        if self.stride == 2:
            given = _each(octaves, lambda part: functional.avg_pool2d(part, 2))
        result = _each(self.bn1(self.conv1(given)), torch.relu)
        high, low = self.bn2(self.conv2(result))
        beside, beside_low = self._shortcut(octaves)
        return torch.relu(high + beside), None if low is None else torch.relu(low + beside_low)

    def _shortcut(self, octaves: Octaves) -> Octaves:
        """The inputs at the outputs' size, with channels of zeros."""
        high, low = _each(octaves, lambda part: part[:, :, :: self.stride, :: self.stride])
        if low is None and self.padding[1]:  # the first channels at half the size
            low = high[:, :0, ::2, ::2]
        high = _widened(high, self.padding[0])
        if low is None:
            return high, None
        low = _widened(low, self.padding[1])
        return (torch.cat([high, enlarged(low)], dim=1), None) if self.last else (high, low)


def _each(octaves: Octaves, function: Callable[[torch.Tensor], torch.Tensor]) -> Octaves:
    """A function of each size."""
    high, low = octaves
    return function(high), None if low is None else function(low)


def _widened(features: torch.Tensor, more: int) -> torch.Tensor:
    """With channels of zeros, half of them on either side."""
    return functional.pad(features, (0, 0, 0, 0, more // 2, more - more // 2)) if more else features


class OctaveResNet20(nn.Module):
    """ResNet-20 for CIFAR-10 with all 3x3 convolutions in octaves; random weights.

    The first layer has no inputs at half the size and the last block no such outputs; the linear
    layer is that of the plain network. It must be trained from the start.

    Args:
        alpha: share of the channels at half the size, 0 to below 1.
        num_classes: outputs of the last layer.

    Raises:
        ModelError: the share is out of range.
    """

    input_shape = (3, 32, 32)
    normalise = "imagenet"

    def __init__(self, alpha: float = 0.5, num_classes: int = 10) -> None:
        super().__init__()
        refuse(problems("OctaveResNet20 ", {"alpha": alpha}, {"alpha": _ALPHA}), ModelError)
        self.conv1 = OctaveConv2d(3, 16, 0.0, alpha)
        self.bn1 = OctaveNorm(16, alpha)
        self.layer1 = _stage(16, 16, alpha)
        self.layer2 = _stage(16, 32, alpha)
        self.layer3 = _stage(32, 64, alpha, last=True)
        self.linear = nn.Linear(64, num_classes)
        he_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images to `(n, num_classes)`; sizes must be multiples of 8."""
        octaves = _each(self.bn1(self.conv1((images, None))), torch.relu)
        high, _ = self.layer3(self.layer2(self.layer1(octaves)))
        return self.linear(high.mean(dim=(2, 3)))


def _stage(inputs: int, outputs: int, alpha: float, *, last: bool = False) -> nn.Sequential:
    return nn.Sequential(
        OctaveBlock(inputs, outputs, outputs // inputs, alpha),
        OctaveBlock(outputs, outputs, 1, alpha),
        OctaveBlock(outputs, outputs, 1, alpha, last=last),
    )
