"""ResNet-38, wide and shallow, that gives every pixel a class."""

from __future__ import annotations

import torch
from torch import nn

from workloads.models.initial import he_normal
from workloads.models.pixel_decoder import CLASS_NAMES, enlarged

# Units of the stages B2 to B5, of two 3x3 convolutions each; B6 and B7 are one bottleneck each.
_UNITS = (3, 3, 6, 3)
# Of the head's convolutions, as the authors' code has it.
_HEAD_DILATION = 12


class _PreActivated(nn.Module):
    """Batch normalisation and ReLU before each convolution; the sum is left as it is.

    Args:
        inputs: channels of the features.
        outputs: channels after each convolution.
        kernels: of the convolutions, square.
        stride: of the first convolution and of the shortcut.
        dilations: of the convolutions.
        projected: whether the shortcut is a 1x1 convolution of the activated features.
        dropout: share of the last convolution's inputs that training leaves out.
    """

    def __init__(
        self,
        inputs: int,
        outputs: tuple[int, ...],
        kernels: tuple[int, ...],
        *,
        stride: int = 1,
        dilations: tuple[int, ...],
        projected: bool,
        dropout: float = 0,
    ) -> None:
        super().__init__()
        channels = (inputs, *outputs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(count) for count in channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(
                channels[i], channels[i + 1], kernel, stride if i == 0 else 1,
                padding=dilation * (kernel // 2), dilation=dilation, bias=False,
            )
            for i, (kernel, dilation) in enumerate(zip(kernels, dilations, strict=True))
        )  # fmt: skip
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.shortcut = nn.Conv2d(inputs, outputs[-1], 1, stride, bias=False) if projected else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(n, inputs, h, w)` to `(n, outputs[-1], h / stride, w / stride)`."""
        activated = torch.relu(self.norms[0](features))
        kept = features if self.shortcut is None else self.shortcut(activated)
        result = self.convs[0](activated)
        for index, (norm, conv) in enumerate(zip(self.norms[1:], self.convs[1:], strict=True)):
            result = torch.relu(norm(result))
            last = index == len(self.convs) - 2
            result = conv(self.dropout(result) if last else result)
        return kept + result


def _stage(
    inputs: int, outputs: tuple[int, int], units: int, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Units of two 3x3 convolutions; a dilation begins at the first unit's second convolution."""
    first = _PreActivated(
        inputs, outputs, (3, 3), stride=stride, dilations=(1, dilation), projected=True
    )
    more = (
        _PreActivated(outputs[1], outputs, (3, 3), dilations=(dilation,) * 2, projected=False)
        for _ in range(units - 1)
    )
    return nn.Sequential(first, *more)


class ResNet38(nn.Module):
    """ResNet-38, model A2 (Wu, Shen and van den Hengel, Pattern Recognition 2019), random weights.

    A convolution (B1) and six stages (B2 to B7) of pre-activated units, up to 64 times as wide.
    B2, B3 and B4 halve the features; from there they keep an eighth of the image's size, with
    dilations of 2 in B5 and 4 in B6 and B7. The head is the paper's "2 conv.", with which the
    network has the published 124 million parameters.

    Args:
        num_classes: classes of a pixel.
        width: channels of B1; 64 is the paper's.
        input_size: (height, width) of the images it is meant for; others run as well.
    """

    normalise = "imagenet"

    def __init__(
        self,
        num_classes: int = 11,
        width: int = 64,
        input_size: tuple[int, int] = (480, 640),
    ) -> None:
        super().__init__()
        self.input_shape = (3, *input_size)
        self.class_names = CLASS_NAMES.get(num_classes, ())
        w = width
        self.b1 = nn.Conv2d(3, w, 3, padding=1, bias=False)
        self.b2 = _stage(w, (2 * w, 2 * w), _UNITS[0], stride=2)
        self.b3 = _stage(2 * w, (4 * w, 4 * w), _UNITS[1], stride=2)
        self.b4 = _stage(4 * w, (8 * w, 8 * w), _UNITS[2], stride=2)
        self.b5 = _stage(8 * w, (8 * w, 16 * w), _UNITS[3], dilation=2)
        self.b6 = self._wide(16 * w, (8 * w, 16 * w, 32 * w), dropout=0.3)
        self.b7 = self._wide(32 * w, (16 * w, 32 * w, 64 * w), dropout=0.5)
        self.norm = nn.BatchNorm2d(64 * w)
        apart = _HEAD_DILATION
        self.head = nn.Sequential(
            nn.Conv2d(64 * w, 8 * w, 3, padding=apart, dilation=apart, bias=False),
            nn.BatchNorm2d(8 * w),
            nn.ReLU(inplace=True),
            nn.Conv2d(8 * w, num_classes, 3, padding=apart, dilation=apart),
        )
        he_normal(self)

    @staticmethod
    def _wide(inputs: int, outputs: tuple[int, int, int], *, dropout: float) -> nn.Module:
        return _PreActivated(
            inputs, outputs, (1, 3, 1), dilations=(1, 4, 1), projected=True, dropout=dropout
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images to `(n, num_classes, h, w)` logits."""
        features = self.b4(self.b3(self.b2(self.b1(images))))
        features = self.b7(self.b6(self.b5(features)))
        return enlarged(self.head(torch.relu(self.norm(features))), images.shape[2:])
