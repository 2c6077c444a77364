"""ESPNet, and the pyramid of dilated convolutions that TwinLiteNet builds on too."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from workloads.models.errors import ModelError

_EPSILON = 1e-3  # of every batch normalisation, as the published weights were trained
_DILATIONS = (1, 2, 4, 8, 16)


def bare_convolution(
    inputs: int, outputs: int, side: int, *, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """A convolution without bias that keeps the size up to its stride."""
    padding = side // 2 * dilation
    return nn.Conv2d(
        inputs, outputs, side, stride=stride, padding=padding, dilation=dilation, bias=False
    )


def convolution(
    inputs: int, outputs: int, side: int, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """The same under the name `conv`, as the authors' files have it."""
    layer = bare_convolution(inputs, outputs, side, stride=stride, dilation=dilation)
    return nn.Sequential(OrderedDict(conv=layer))


def activation(channels: int) -> OrderedDict[str, nn.Module]:
    """Batch normalisation and PReLU, each channel with its own slope."""
    return OrderedDict(bn=nn.BatchNorm2d(channels, eps=_EPSILON), act=nn.PReLU(channels))


def activated_convolution(
    inputs: int, outputs: int, side: int, *, stride: int = 1
) -> nn.Sequential:
    """A convolution, batch normalisation and PReLU."""
    layer = bare_convolution(inputs, outputs, side, stride=stride)
    return nn.Sequential(OrderedDict(conv=layer, **activation(outputs)))


class SpatialPyramid(nn.Module):
    """Reduce, split into five dilated 3x3 convolutions, add up and join (ESPNet, section 3.1).

    The results with dilation 2 to 16 are added to those with smaller ones before they are joined
    (hierarchical feature fusion), which removes the grid that dilation leaves.

    Args:
        inputs: channels in.
        outputs: channels out; a fifth each, the remainder to the first.
        stride: 2 halves height and width by a 3x3 reduction; 1 reduces by 1x1.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        width = outputs // len(_DILATIONS)
        self.c1 = convolution(inputs, width, 3 if stride == 2 else 1, stride=stride)
        for dilation in _DILATIONS:
            kept = outputs - 4 * width if dilation == 1 else width
            self.add_module(f"d{dilation}", convolution(width, kept, 3, dilation=dilation))

    def joined(self, features: torch.Tensor) -> torch.Tensor:
        """The five results, joined."""
        reduced = self.c1(features)
        first, *rest = (self.get_submodule(f"d{dilation}")(reduced) for dilation in _DILATIONS)
        sums = [rest[0]]
        for result in rest[1:]:
            sums.append(sums[-1] + result)
        return torch.cat([first, *sums], dim=1)


class DownSampler(SpatialPyramid):
    """A pyramid of stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, stride=2)
        self.bn = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self.act = nn.PReLU(outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(n, inputs, h, w)` to `(n, outputs, h / 2, w / 2)`."""
        return self.act(self.bn(self.joined(features)))


class EspModule(SpatialPyramid):
    """A pyramid of stride 1, with a shortcut where it has as many channels out as in."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.has_shortcut = inputs == outputs
        self.bn = nn.Sequential(activation(outputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(n, inputs, h, w)` to `(n, outputs, h, w)`."""
        joined = self.joined(features)
        return self.bn(features + joined if self.has_shortcut else joined)


def shrunk(images: torch.Tensor, times: int) -> torch.Tensor:
    """The images at half the size, `times` over: each level sees the input itself once more."""
    for _ in range(times):
        images = avg_pool2d(images, 3, stride=2, padding=1)
    return images


class _Encoder(nn.Module):
    """ESPNet-C up to its last features; `classifier` is called by `ESPNet`."""

    def __init__(self, num_classes: int, p: int, q: int) -> None:
        super().__init__()
        self.level1 = activated_convolution(3, 16, 3, stride=2)
        self.b1 = nn.Sequential(activation(16 + 3))
        self.level2_0 = DownSampler(16 + 3, 64)
        self.level2 = nn.Sequential(*(EspModule(64, 64) for _ in range(p)))
        self.b2 = nn.Sequential(activation(128 + 3))
        self.level3_0 = DownSampler(128 + 3, 128)
        self.level3 = nn.Sequential(*(EspModule(128, 128) for _ in range(q)))
        self.b3 = nn.Sequential(activation(256))
        self.classifier = convolution(256, num_classes, 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`(n, 3, h, w)` to features of 1/2, 1/4 and 1/8 of the size: 19, 131 and 256 channels."""
        half = self.b1(torch.cat([self.level1(images), shrunk(images, 1)], dim=1))
        first = self.level2_0(half)
        quarter = self.b2(torch.cat([self.level2(first), first, shrunk(images, 2)], dim=1))
        first = self.level3_0(quarter)
        return half, quarter, self.b3(torch.cat([first, self.level3(first)], dim=1))


class ESPNet(nn.Module):
    """ESPNet (Mehta et al., ECCV 2018, arXiv:1803.06815, figure 4d), random weights.

    Modules and parameters are called as in the authors' checkpoints, so that those load. The
    checkpoint for CamVid answers 12 classes of which the last, unlabelled, was never trained. Its
    input is `normalise`: blue first, less CamVid's mean, over its deviation and 255.

    Args:
        num_classes: of the answer, one for each dilation of a pyramid (5) or more; 12 for the
            weights trained on CamVid, 20 on Cityscapes.
        p: pyramids at a quarter of the size.
        q: pyramids at an eighth.
        joins_input: whether the last convolution sees the input (halved in size) beside the first
            features, as in the CamVid weights; False for those of Cityscapes.
    """

    input_shape = (3, 360, 480)
    normalise = "espnet_camvid"

    def __init__(
        self, num_classes: int = 12, p: int = 2, q: int = 8, joins_input: bool = True
    ) -> None:
        super().__init__()
        if num_classes < len(_DILATIONS):
            raise ModelError(
                f"ESPNet num_classes must be at least {len(_DILATIONS)}, got {num_classes}: its "
                "last pyramid splits a channel per class; answer more than there are, or "
                "take another network"
            )
        count = num_classes
        self.encoder = _Encoder(count, p, q)
        self.joins_input = joins_input
        self.level3_C = convolution(128 + 3, count, 1)
        self.br = nn.BatchNorm2d(count, eps=_EPSILON)
        self.up_l3 = nn.Sequential(_doubled(count))
        self.combine_l2_l3 = nn.Sequential(
            nn.Sequential(activation(2 * count)), EspModule(2 * count, count)
        )
        self.up_l2 = nn.Sequential(_doubled(count), nn.Sequential(activation(count)))
        self.conv = activated_convolution(count + (19 if joins_input else 16), count, 3)
        self.classifier = _doubled(count)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images, h and w multiples of 8, to `(n, num_classes, h, w)` logits."""
        if images.ndim != 4 or images.shape[2] % 8 or images.shape[3] % 8:
            raise ModelError(
                "ESPNet input must have shape (n, 3, h, w) with h and w multiples of 8, got "
                f"{tuple(images.shape)}; resize the images"
            )
        half, quarter, eighth = self.encoder(images)
        deep = self.up_l3(self.br(self.encoder.classifier(eighth)))
        joined = self.combine_l2_l3(torch.cat([self.level3_C(quarter), deep], dim=1))
        fine = half if self.joins_input else self.encoder.level1(images)
        return self.classifier(self.conv(torch.cat([self.up_l2(joined), fine], dim=1)))


def _doubled(channels: int) -> nn.ConvTranspose2d:
    """A learned doubling of height and width."""
    return nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)
