"""PSANet, a segmentation network whose every position attends to every other."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from workloads.models.errors import ModelError
from workloads.models.initial import he_normal
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
        size: side of the square map attended on.
    """

    def __init__(self, channels: int, width: int, size: int) -> None:
        super().__init__()
        self.size = size
        displacements = (2 * size - 1) ** 2
        self.reduce = _reduction(channels, width)
        self.attention = nn.Sequential(
            _reduction(width, width), nn.Conv2d(width, displacements, 1, bias=False)
        )
        self.reduce_p = _reduction(channels, width)
        self.attention_p = nn.Sequential(
            _reduction(width, width), nn.Conv2d(width, displacements, 1, bias=False)
        )
        self.proj = _reduction(2 * width, channels)
        steps = torch.arange(size)
        step = steps[None, :] - steps[:, None] + size - 1  # from row to column, 0 is the farthest
        index = step[:, None, :, None] * (2 * size - 1) + step[None, :, None, :]
        self.displacement = nn.Buffer(index.reshape(size**2, size**2), persistent=False)

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
        joined = self.proj(torch.cat(both, dim=1).unflatten(2, (self.size, self.size)))
        return functional.interpolate(
            joined, features.shape[2:], mode="bilinear", align_corners=True
        )

    def _shrunk(self, features: torch.Tensor) -> torch.Tensor:
        side = (self.size, self.size)
        return functional.interpolate(features, side, mode="bilinear", align_corners=True)

    def _weights(self, maps: torch.Tensor) -> torch.Tensor:
        """`(n, displacements, size, size)` maps to `(n, from, to)` weights of positions."""
        rows = maps.flatten(2).transpose(1, 2)
        return rows.gather(2, self.displacement.expand(len(maps), -1, -1))


class PSANet50(nn.Module):
    """PSANet on a dilated ResNet-50 (Zhao et al., ECCV 2018), random weights.

    Features are 1/8 of the image; attention works on half of that. The auxiliary loss's branch of
    the training is left out.

    Args:
        num_classes: classes of a pixel; 21 are those of PASCAL VOC 2012.
        image_size: side of the square images, 8 k + 1 pixels; 473 is the paper's for VOC. Weights
            fit one size only.

    Raises:
        ModelError: for an image size or images of another form.
    """

    normalise = "imagenet"

    def __init__(self, num_classes: int = 21, image_size: int = 473) -> None:
        super().__init__()
        if image_size % 8 != 1 or image_size < 17:
            raise ModelError(
                f"PSANet50 image_size must be 8 k + 1 and at least 17, got {image_size}; "
                f"use {max(image_size // 8, 2) * 8 + 1}"
            )
        self.input_shape = (3, image_size, image_size)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(Bottleneck, 64, 64, 3, stride=1)
        self.layer2 = stage(Bottleneck, 256, 128, 4, stride=2)
        self.layer3 = stage(Bottleneck, 512, 256, 6, stride=1, dilation=2)
        self.layer4 = stage(Bottleneck, 1024, 512, 3, stride=1, dilation=4)
        features = (image_size - 1) // 8 + 1
        self.psa = PointwiseSpatialAttention(2048, 512, (features - 1) // 2 + 1)
        self.cls = nn.Sequential(
            _reduction(4096, 512, 3), nn.Dropout2d(0.1), nn.Conv2d(512, num_classes, 1)
        )
        he_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, image_size, image_size)` to `(n, num_classes, image_size, image_size)`."""
        if tuple(images.shape[1:]) != self.input_shape:
            raise ModelError(
                f"PSANet50 input must have shape (n, {', '.join(map(str, self.input_shape))}), got "
                f"{tuple(images.shape)}; resize the images, or give image_size"
            )
        features = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        attended = self.cls(torch.cat([features, self.psa(features)], dim=1))
        return functional.interpolate(
            attended, images.shape[2:], mode="bilinear", align_corners=True
        )
