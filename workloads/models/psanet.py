"""PSANet, a segmentation network whose every position attends to every other."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from workloads.models.errors import ModelError
from workloads.models.initial import he_normal
from workloads.models.pixel_decoder import CLASS_NAMES
from workloads.models.resnet import Bottleneck, stage


def _reduction(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class PointwiseSpatialAttention(nn.Module):
    """Every position collects from, and is given by, every other (PSANet, sections 3.2 and 3.3).

    Each branch predicts, at every position, a weight for each relative displacement: a map of
    (2h-1) x (2w-1) channels, of which the h x w that lie in the image are used. In `collect` they
    weigh what the position takes, in `distribute` what it gives; both are normalised by a softmax
    over the positions that contribute.

    Args:
        channels: of the features.
        width: channels that are attended to.
        size: (height, width) of the map attended on.
    """

    def __init__(self, channels: int, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        height, across = size
        displacements = (2 * height - 1) * (2 * across - 1)
        self.reduce = _reduction(channels, width)
        self.attention = nn.Sequential(
            _reduction(width, width), nn.Conv2d(width, displacements, 1, bias=False)
        )
        self.reduce_p = _reduction(channels, width)
        self.attention_p = nn.Sequential(
            _reduction(width, width), nn.Conv2d(width, displacements, 1, bias=False)
        )
        self.proj = _reduction(2 * width, channels)
        down, right = (_steps(side) for side in size)
        index = down[:, None, :, None] * (2 * across - 1) + right[None, :, None, :]
        positions = height * across
        self.displacement = nn.Buffer(index.reshape(positions, positions), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(n, channels, h, w)` to the same shape."""
        collected = self._shrunk(self.reduce(features))
        given = self._shrunk(self.reduce_p(features))
        collect = self._weights(self.attention(collected))
        distribute = self._weights(self.attention_p(given)).transpose(1, 2)
        both = [
            (weights.softmax(dim=2) @ values.flatten(2).transpose(1, 2)).transpose(1, 2)
            for weights, values in ((collect, collected), (distribute, given))
        ]
        joined = self.proj(torch.cat(both, dim=1).unflatten(2, self.size))
        return functional.interpolate(
            joined, features.shape[2:], mode="bilinear", align_corners=True
        )

    def _shrunk(self, features: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(features, self.size, mode="bilinear", align_corners=True)

    def _weights(self, maps: torch.Tensor) -> torch.Tensor:
        """`(n, displacements, *size)` maps to `(n, from, to)` weights of positions."""
        rows = maps.flatten(2).transpose(1, 2)
        return rows.gather(2, self.displacement.expand(len(maps), -1, -1))


def _steps(side: int) -> torch.Tensor:
    """From each of `side` places (rows) to each (columns); 0 is the farthest back."""
    places = torch.arange(side)
    return places[None, :] - places[:, None] + side - 1


class PSANet(nn.Module):
    """PSANet on a dilated ResNet-50 (Zhao et al., ECCV 2018), random weights.

    Features are 1/8 of the image; attention works on half of that. The auxiliary loss's branch of
    the training is left out. Sized for a Raspberry Pi unless told otherwise.

    Args:
        num_classes: classes of a pixel.
        width: channels of the first stage's 3x3 convolutions; 64 is the paper's.
        input_size: (height, width) of the images, 9 pixels a side or more. Weights fit one size
            only.

    Raises:
        ModelError: for an image size or images of another form.
    """

    normalise = "imagenet"

    def __init__(
        self,
        num_classes: int = 11,
        width: int = 8,
        input_size: tuple[int, int] = (120, 160),
    ) -> None:
        super().__init__()
        if min(input_size) < 9:
            raise ModelError(
                f"{type(self).__name__} input_size must be at least 9 pixels a side, got "
                f"{tuple(input_size)}; give the height and width of the images"
            )
        self.input_shape = (3, *input_size)
        self.class_names = CLASS_NAMES.get(num_classes, ())
        w = width
        self.conv1 = nn.Conv2d(3, w, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(w)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(Bottleneck, w, w, 3, stride=1)
        self.layer2 = stage(Bottleneck, 4 * w, 2 * w, 4, stride=2)
        self.layer3 = stage(Bottleneck, 8 * w, 4 * w, 6, stride=1, dilation=2)
        self.layer4 = stage(Bottleneck, 16 * w, 8 * w, 3, stride=1, dilation=4)
        features = [(side - 1) // 8 + 1 for side in input_size]
        height, across = ((side - 1) // 2 + 1 for side in features)
        self.psa = PointwiseSpatialAttention(32 * w, 8 * w, (height, across))
        self.cls = nn.Sequential(
            _reduction(64 * w, 8 * w, 3), nn.Dropout2d(0.1), nn.Conv2d(8 * w, num_classes, 1)
        )
        he_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images of the one size to `(n, num_classes, h, w)` logits."""
        if tuple(images.shape[1:]) != self.input_shape:
            raise ModelError(
                f"{type(self).__name__} input must have shape "
                f"(n, {', '.join(map(str, self.input_shape))}), got {tuple(images.shape)}; resize "
                "the images, or build it for their size"
            )
        features = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        attended = self.cls(torch.cat([features, self.psa(features)], dim=1))
        return functional.interpolate(
            attended, images.shape[2:], mode="bilinear", align_corners=True
        )


class PSANet50(PSANet):
    """PSANet of the paper's width on square images, random weights.

    Args:
        num_classes: classes of a pixel; 21 are those of PASCAL VOC 2012.
        image_size: side of the square images, 8 k + 1 pixels; 473 is the paper's for VOC. Weights
            fit one size only.

    Raises:
        ModelError: for an image size or images of another form.
    """

    def __init__(self, num_classes: int = 21, image_size: int = 473) -> None:
        if image_size % 8 != 1 or image_size < 17:
            raise ModelError(
                f"PSANet50 image_size must be 8 k + 1 and at least 17, got {image_size}; "
                f"use {max(image_size // 8, 2) * 8 + 1}"
            )
        super().__init__(num_classes, width=64, input_size=(image_size, image_size))
