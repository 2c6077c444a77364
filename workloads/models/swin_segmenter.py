"""A small Swin transformer of Hugging Face's `transformers` that gives every pixel a class."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import SwinBackbone, SwinConfig

from workloads.models.pixel_decoder import CLASS_NAMES, PixelDecoder


class SwinSegmenter(nn.Module):
    """Three stages of Swin (Liu et al., ICCV 2021) and a small decoder, random weights.

    Sized for a Raspberry Pi: patches of 4x4, windows of 5x5, which fit 120x160 images (30x40,
    15x20 and 8x10 patches, the last padded to 10x10), and two blocks a stage.

    Args:
        num_classes: 11 for CamVid's scenes, 2 for lanes.
        width: channels of the first stage, a multiple of 16; the others have 2 and 4 times as many.
        input_size: (height, width) of the images it is meant for; others of 80 pixels a side or
            more run as well.
    """

    normalise = "imagenet"

    def __init__(
        self,
        num_classes: int = 11,
        width: int = 48,
        input_size: tuple[int, int] = (120, 160),
    ) -> None:
        super().__init__()
        self.input_shape = (3, *input_size)
        self.class_names = CLASS_NAMES.get(num_classes, ())
        config = SwinConfig(
            image_size=input_size,
            patch_size=4,
            embed_dim=width,
            depths=[2, 2, 2],
            num_heads=[width // 16 * 2**i for i in range(3)],
            window_size=5,
            drop_path_rate=0.0,
        )
        config.out_features = ["stage1", "stage2", "stage3"]
        self.backbone = SwinBackbone(config)
        self.decoder = PixelDecoder([width * 2**i for i in range(3)], width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """`(n, 3, h, w)` images to `(n, num_classes, h, w)` logits."""
        features = self.backbone(pixel_values=images).feature_maps
        return self.decoder(features, images.shape[2:])
