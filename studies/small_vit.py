"""A vision transformer of 257 tokens of CIFAR-10's images, for study 017."""

from collections.abc import Iterator, Mapping

from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from workloads.models.vision_transformers import ViTS16
from workloads.models.weights import Named


class SmallViT(ViTForImageClassification):
    """Patches of 2x2 pixels, width 192, 8 blocks of 3 heads; random weights.

    Weights load from timm's layout. Pixels are normalised as "imagenet".
    """

    normalise = "imagenet"
    input_shape = (3, 32, 32)

    def __init__(self) -> None:
        config = ViTConfig(
            image_size=32, patch_size=2, hidden_size=192, num_hidden_layers=8,
            num_attention_heads=3, intermediate_size=768, layer_norm_eps=1e-6,
        )  # fmt: skip
        config.num_labels = 10
        super().__init__(config)

    def forward(self, images: Tensor) -> Tensor:
        """`(n, 3, 32, 32)` images to `(n, 10)`."""
        return super().forward(pixel_values=images).logits

    def named_as_here(self, tensors: Mapping[str, Tensor]) -> Iterator[Named]:
        """A checkpoint of timm's layout by the names of this model."""
        return ViTS16.named_as_here(self, tensors)  # type: ignore[arg-type]
