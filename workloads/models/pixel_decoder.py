"""From an encoder's features to a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

from workloads.streams.camvid import CAMVID_CLASSES
from workloads.streams.lanes import LANE_CLASSES

CLASS_NAMES = {len(names): names for names in (LANE_CLASSES, CAMVID_CLASSES)}
"""Number of classes -> what they are called, of the tasks that the segmenters are made for."""


class PixelDecoder(nn.Module):
    """A small feature pyramid (Lin et al., CVPR 2017): 1x1 convolutions, added from coarse to fine.

    The classes are found at the finest features' size and enlarged bilinearly.

    Args:
        channels: of each feature map, finest first.
        width: channels that all are brought to.
        num_classes: of the answer.
    """

    def __init__(self, channels: Sequence[int], width: int, num_classes: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Sequence[torch.Tensor], size: Sequence[int]) -> torch.Tensor:
        """Feature maps, finest first, to `(n, num_classes, *size)` logits."""
        sides = [lateral(each) for lateral, each in zip(self.laterals, features, strict=True)]
        result = sides[-1]
        for side in reversed(sides[:-1]):
            result = side + enlarged(result, side.shape[2:])
        return enlarged(self.classifier(self.smooth(result)), size)


def enlarged(features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """`(n, c, h, w)` to `(n, c, *size)`, bilinearly."""
    return interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)
