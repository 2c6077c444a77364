"""TwinLiteNet, which marks lanes and drivable road."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from workloads.models.errors import ModelError
from workloads.models.espnet import (
    DownSampler,
    EspModule,
    activated_convolution,
    activation,
    shrunk,
)

PARTS = ("lanes", "drivable")


class _PositionAttention(nn.Module):
    """Every position sees all others (Fu et al., DANet, CVPR 2019, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // 8, 1)
        self.key_conv = nn.Conv2d(channels, channels // 8, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(features).flatten(2)
            for layer in (self.query_conv, self.key_conv, self.value_conv)
        )
        attention = torch.bmm(query.transpose(1, 2), key).softmax(dim=-1)
        seen = torch.bmm(value, attention.transpose(1, 2)).reshape(features.shape)
        return self.gamma * seen + features


class _ChannelAttention(nn.Module):
    """Every channel sees all others, the least alike most (DANet, section 3.3)."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        flat = features.flatten(2)
        likeness = torch.bmm(flat, flat.transpose(1, 2))
        attention = (likeness.amax(dim=-1, keepdim=True) - likeness).softmax(dim=-1)
        return self.gamma * torch.bmm(attention, flat).reshape(features.shape) + features


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.level1 = activated_convolution(3, 16, 3, stride=2)
        self.b1 = activated_convolution(16 + 3, 19, 3)
        self.level2_0 = DownSampler(19, 64)
        self.level2 = nn.Sequential(*(EspModule(64, 64) for _ in range(2)))
        self.b2 = activated_convolution(128 + 3, 131, 3)
        self.level3_0 = DownSampler(131, 128)
        self.level3 = nn.Sequential(*(EspModule(128, 128) for _ in range(3)))
        self.b3 = activated_convolution(256, 32, 3)
        self.sa = _PositionAttention(32)
        self.sc = _ChannelAttention()
        self.conv_sa = activated_convolution(32, 32, 3)
        self.conv_sc = activated_convolution(32, 32, 3)
        self.classifier = activated_convolution(32, 32, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` to `(n, 32, h / 8, w / 8)`."""
        half = self.b1(torch.cat([self.level1(images), shrunk(images, 1)], dim=1))
        first = self.level2_0(half)
        quarter = self.b2(torch.cat([self.level2(first), first, shrunk(images, 2)], dim=1))
        first = self.level3_0(quarter)
        eighth = self.b3(torch.cat([first, self.level3(first)], dim=1))
        return self.classifier(self.conv_sa(self.sa(eighth)) + self.conv_sc(self.sc(eighth)))


def _doubled(inputs: int, outputs: int) -> nn.Sequential:
    """A learned doubling of height and width."""
    layer = nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False)
    return nn.Sequential(OrderedDict(deconv=layer, **activation(outputs)))


class TwinLiteNet(nn.Module):
    """TwinLiteNet (Che et al., MAPR 2023, arXiv:2307.10705), random weights, 0.44 M parameters.

    Modules and parameters are called as in the authors' checkpoint, trained on BDD100K at
    360x640, so that it loads. Of its two decoders one is run.

    Args:
        part: 'lanes' (other, lane) or 'drivable' (other, drivable).
    """

    input_shape = (3, 360, 640)
    normalise = "unit"

    def __init__(self, part: str = "lanes") -> None:
        super().__init__()
        if part not in PARTS:
            raise ModelError(f"TwinLiteNet part must be one of {', '.join(PARTS)}, got {part!r}")
        self.part = part
        self.encoder = _Encoder()
        for decoder in (1, 2):  # 1 is the drivable area's
            self.add_module(f"up_1_{decoder}", _doubled(32, 16))
            self.add_module(f"up_2_{decoder}", _doubled(16, 8))
            self.add_module(f"classifier_{decoder}", _doubled(8, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images, h and w multiples of 8, to `(n, 2, h, w)` logits."""
        if images.ndim != 4 or images.shape[2] % 8 or images.shape[3] % 8:
            raise ModelError(
                "TwinLiteNet input must have shape (n, 3, h, w) with h and w multiples of 8, got "
                f"{tuple(images.shape)}; resize the images"
            )
        decoder = 1 if self.part == "drivable" else 2
        features = self.encoder(images)
        for name in ("up_1", "up_2", "classifier"):
            features = self.get_submodule(f"{name}_{decoder}")(features)
        return features
