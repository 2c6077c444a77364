"""A ResNet-18, of full or a quarter's width, that gives every pixel a class."""

from __future__ import annotations

import torch
from torch import nn

from workloads.models.initial import he_normal
from workloads.models.pixel_decoder import CLASS_NAMES, PixelDecoder
from workloads.models.resnet import BasicBlock, stage
from workloads.models.shipped import load_shipped


class ResNet18Segmenter(nn.Module):
    """ResNet-18's stages with `width` channels instead of 64 and a small decoder, random weights.

    Sized for a Raspberry Pi unless told otherwise. As in residual networks for small images, a 3x3
    convolution of stride 2 replaces the 7x7 one and the pooling: the finest features are half the
    input's size.

    Args:
        num_classes: 11 for CamVid's scenes, 2 for lanes.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        input_size: (height, width) of the images it is meant for; others run as well.
    """

    normalise = "imagenet"

    def __init__(
        self,
        num_classes: int = 11,
        width: int = 16,
        input_size: tuple[int, int] = (120, 160),
    ) -> None:
        super().__init__()
        self.input_shape = (3, *input_size)
        self.class_names = CLASS_NAMES.get(num_classes, ())
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(BasicBlock, width, width, 2, stride=1)
        self.layer2 = stage(BasicBlock, width, 2 * width, 2, stride=2)
        self.layer3 = stage(BasicBlock, 2 * width, 4 * width, 2, stride=2)
        self.layer4 = stage(BasicBlock, 4 * width, 8 * width, 2, stride=2)
        self.decoder = PixelDecoder([width * 2**i for i in range(4)], 2 * width, num_classes)
        he_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(n, 3, h, w)` images to `(n, num_classes, h, w)` logits."""
        features = [self.layer1(self.relu(self.bn1(self.conv1(images))))]
        for layer in (self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return self.decoder(features, images.shape[2:])


def resnet18_camvid(*, pretrained: bool = True, num_classes: int = 11) -> ResNet18Segmenter:
    """`ResNet18Segmenter` with CamVid's 11 classes and this project's own weights, in eval mode.

    `resnet18_camvid.md` beside them says on which data, with which commands, and how well they do.
    CamVid is CC BY-NC 4.0: the weights may not be used commercially.

    Args:
        pretrained: load these weights; False leaves random ones.
        num_classes: of the answer; these weights answer 11.
    """
    return _segmenter("resnet18_camvid.safetensors", ResNet18Segmenter(num_classes), pretrained)


def resnet18_camvid_reuse(*, pretrained: bool = True, num_classes: int = 11) -> ResNet18Segmenter:
    """The same, trained on with reuse (similarity-aware), for runs under that reuse alone.

    Args:
        pretrained: load these weights; False leaves random ones.
        num_classes: of the answer; these weights answer 11.
    """
    model = ResNet18Segmenter(num_classes)
    return _segmenter("resnet18_camvid_reuse.safetensors", model, pretrained)


def resnet18_w64_camvid(*, pretrained: bool = True, num_classes: int = 11) -> ResNet18Segmenter:
    """`ResNet18Segmenter` of ResNet-18's full width at 240x320, CamVid's 11 classes, in eval mode.

    Its weights have 8 bits each on disk and float32 in the model; `resnet18_w64_camvid.md` beside
    them is their card. CamVid is CC BY-NC 4.0: they may not be used commercially.

    Args:
        pretrained: load these weights; False leaves random ones.
        num_classes: of the answer; these weights answer 11.
    """
    model = ResNet18Segmenter(num_classes, width=64, input_size=(240, 320))
    return _segmenter("resnet18_w64_camvid.safetensors.gz", model, pretrained)


def _segmenter(file_name: str, model: ResNet18Segmenter, pretrained: bool) -> ResNet18Segmenter:
    if pretrained:
        load_shipped(model, file_name, "CamVid weights of this project")
    return model.eval()
