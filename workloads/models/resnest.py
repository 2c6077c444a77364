"""ResNeSt-50, and a narrow one that gives every pixel a class."""

from __future__ import annotations

import torch
from torch import nn

from workloads.models.initial import he_normal
from workloads.models.pixel_decoder import CLASS_NAMES, PixelDecoder

_RADIX = 2


class SplitAttention(nn.Module):
    """A 3x3 convolution in two groups, added by weights of the whole image (paper, figure 2).

    With cardinality 1 and radix 2, each group's channels are weighed by a softmax over the groups.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        wide, squeezed = width * _RADIX, max(width * _RADIX // 4, 32)
        self.conv = nn.Conv2d(width, wide, 3, padding=1, groups=_RADIX, bias=False)
        self.bn0 = nn.BatchNorm2d(wide)
        self.fc1 = nn.Conv2d(width, squeezed, 1)
        self.bn1 = nn.BatchNorm2d(squeezed)
        self.fc2 = nn.Conv2d(squeezed, wide, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(n, width, h, w)` to the same shape."""
        splits = torch.relu(self.bn0(self.conv(features))).unflatten(1, (_RADIX, -1))
        pooled = splits.sum(dim=1).mean(dim=(2, 3), keepdim=True)
        scores = self.fc2(torch.relu(self.bn1(self.fc1(pooled)))).unflatten(1, (_RADIX, -1))
        return (splits * scores.softmax(dim=1)).sum(dim=1)


class SplitBottleneck(nn.Module):
    """1x1 convolution, split attention, 1x1 convolution and a shortcut; strides are averages."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = SplitAttention(width)
        self.avd_last = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(n, inputs, h, w)` to `(n, 4 * width, h / stride, w / stride)`."""
        shortcut = features if self.downsample is None else self.downsample(features)
        result = self.avd_last(self.conv2(torch.relu(self.bn1(self.conv1(features)))))
        return torch.relu(self.bn3(self.conv3(result)) + shortcut)


def _stem(width: int) -> nn.Sequential:
    """Three 3x3 convolutions, the first of stride 2."""
    half = width // 2
    return nn.Sequential(
        nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, half, 3, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, width, 3, padding=1, bias=False),
    )


def _stage(inputs: int, width: int, depth: int, *, stride: int) -> nn.Sequential:
    first = SplitBottleneck(inputs, width, stride)
    return nn.Sequential(first, *(SplitBottleneck(4 * width, width, 1) for _ in range(depth - 1)))


class ResNeSt50(nn.Module):
    """ResNeSt-50 "2s1x64d" (Zhang et al., arXiv:2004.08955, table 3), random weights.

    Modules and parameters are called as in the authors' checkpoint, which is timm's `resnest50d`
    too, so that it loads.

    Args:
        num_classes: outputs of the last layer.
    """

    input_shape = (3, 224, 224)
    normalise = "imagenet"

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = _stem(64)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, stride=2)
        self.fc = nn.Linear(2048, num_classes)
        he_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images to `(n, num_classes)`."""
        features = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.fc(features.mean(dim=(2, 3)))


class ResNeStSegmenter(nn.Module):
    """ResNeSt-50's stages with `width` channels instead of 64 and a small decoder, random weights.

    Sized for a Raspberry Pi unless told otherwise. There is no pooling: the finest features are
    half the input's size.

    Args:
        num_classes: 11 for CamVid's scenes, 2 for lanes.
        width: of the first stage's 3x3 convolutions, an even number; its features have 4 times as
            many channels, those of the others 8, 16 and 32 times.
        input_size: (height, width) of the images it is meant for; others run as well.
    """

    normalise = "imagenet"

    def __init__(
        self,
        num_classes: int = 11,
        width: int = 8,
        input_size: tuple[int, int] = (120, 160),
    ) -> None:
        super().__init__()
        self.input_shape = (3, *input_size)
        self.class_names = CLASS_NAMES.get(num_classes, ())
        self.conv1 = _stem(width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 3, stride=1)
        self.layer2 = _stage(4 * width, 2 * width, 4, stride=2)
        self.layer3 = _stage(8 * width, 4 * width, 6, stride=2)
        self.layer4 = _stage(16 * width, 8 * width, 3, stride=2)
        self.decoder = PixelDecoder([4 * width * 2**i for i in range(4)], 4 * width, num_classes)
        he_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images to `(n, num_classes, h, w)` logits."""
        features = [self.layer1(torch.relu(self.bn1(self.conv1(images))))]
        for layer in (self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return self.decoder(features, images.shape[2:])
