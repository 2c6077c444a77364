"""ViT and Swin of Hugging Face's `transformers`, an optional package imported here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from torch import Tensor
from transformers import (
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from workloads.models.weights import Named

Rules = Sequence[tuple[str, str]]

# A block of a ViT as timm and as torchvision call it, and its parts.
_VIT_BLOCK = r"(?:blocks\.|encoder\.layers\.encoder_layer_)(\d+)\."
_VIT_RULES: Rules = (
    (r"cls_token|class_token", "vit.embeddings.cls_token"),
    (r"pos_embed|encoder\.pos_embedding", "vit.embeddings.position_embeddings"),
    (r"(?:patch_embed\.proj|conv_proj)\.", "vit.embeddings.patch_embeddings.projection."),
    (rf"{_VIT_BLOCK}(?:norm1|ln_1)\.", r"vit.layers.\1.layernorm_before."),
    (
        rf"{_VIT_BLOCK}(?:attn\.qkv\.|self_attention\.in_proj_)",
        r"vit.layers.\1.attention.{}_proj.",
    ),
    (rf"{_VIT_BLOCK}(?:attn\.proj|self_attention\.out_proj)\.", r"vit.layers.\1.attention.o_proj."),
    (rf"{_VIT_BLOCK}(?:norm2|ln_2)\.", r"vit.layers.\1.layernorm_after."),
    (rf"{_VIT_BLOCK}mlp\.(?:fc1|0|linear_1)\.", r"vit.layers.\1.mlp.fc1."),
    (rf"{_VIT_BLOCK}mlp\.(?:fc2|3|linear_2)\.", r"vit.layers.\1.mlp.fc2."),
    (r"(?:norm|encoder\.ln)\.", "vit.layernorm."),
    (r"(?:head|heads\.head)\.", "classifier."),
)

_SWIN_BLOCK = r"layers\.(\d)\.blocks\.(\d+)\."
_SWIN_OWN = r"swin.encoder.layers.\1.blocks.\2."
_SWIN_RULES: Rules = (
    (r"patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"patch_embed\.norm\.", "swin.embeddings.norm."),
    (rf"{_SWIN_BLOCK}norm1\.", rf"{_SWIN_OWN}layernorm_before."),
    (rf"{_SWIN_BLOCK}attn\.qkv\.", rf"{_SWIN_OWN}attention.{{}}_proj."),
    (rf"{_SWIN_BLOCK}attn\.proj\.", rf"{_SWIN_OWN}attention.o_proj."),
    (
        rf"{_SWIN_BLOCK}attn\.relative_position_bias_table",
        rf"{_SWIN_OWN}attention.relative_position_bias.relative_position_bias_table",
    ),
    (rf"{_SWIN_BLOCK}norm2\.", rf"{_SWIN_OWN}layernorm_after."),
    (rf"{_SWIN_BLOCK}mlp\.(?:fc1|0)\.", rf"{_SWIN_OWN}mlp.fc1."),
    (rf"{_SWIN_BLOCK}mlp\.(?:fc2|3)\.", rf"{_SWIN_OWN}mlp.fc2."),
    (r"layers\.(\d)\.downsample\.", r"swin.encoder.layers.\1.downsample."),
    (r"norm\.", "swin.layernorm."),
    (r"(?:head\.fc|head)\.", "classifier."),
)
# What a Swin checkpoint holds that follows from the size of a window.
_SWIN_CONSTANTS = (".relative_position_index", ".attn_mask")


def _authors_swin_name(name: str, *, merges_first: bool) -> str:
    """A Swin parameter as the authors call it.

    Args:
        name: as the authors, timm or torchvision call it.
        merges_first: whether a stage begins by merging patches, as in later timm, instead of ending
            by it.
    """
    if found := re.match(r"features\.(\d)\.(.+)", name):  # torchvision's
        place, rest = int(found[1]), found[2]
        if place == 0:
            return re.sub(r"^2\.", "patch_embed.norm.", re.sub(r"^0\.", "patch_embed.proj.", rest))
        stage, merge = divmod(place - 1, 2)
        return f"layers.{stage}.{'downsample' if merge else 'blocks'}.{rest}"
    if merges_first and (found := re.match(r"layers\.(\d)\.downsample\.(.+)", name)):
        return f"layers.{int(found[1]) - 1}.downsample.{found[2]}"
    return name


def _renamed(given: str, name: str, tensor: Tensor, rules: Rules) -> Iterator[Named]:
    """A tensor by the name that the rules give; one fused of q, k and v is taken apart.

    A name that no rule knows stays, and is then told to be unknown.
    """
    for pattern, own in rules:
        found = re.match(pattern, name)
        # A rule that ends in a separator is the start of a name, any other all of it.
        if found and (own.endswith(".") or found.end() == len(name)):
            name = found.expand(own) + name[found.end() :]
            break
    if "{}" not in name:
        yield Named(name=name, given=given, tensor=tensor)
        return
    # Rows of the fused matrix: those of all queries, of all keys, of all values.
    for part, rows in zip("qkv", tensor.tensor_split(3), strict=True):
        yield Named(name=name.format(part), given=given, tensor=rows)


class _ViT(ViTForImageClassification):
    """A vision transformer whose result is its logits."""

    normalise = "imagenet"
    width: ClassVar[int]
    heads: ClassVar[int]

    def __init__(self, num_classes: int = 1000, image_size: int = 224, depth: int = 12) -> None:
        config = ViTConfig(
            image_size=image_size,
            hidden_size=self.width,
            num_hidden_layers=depth,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            layer_norm_eps=1e-6,  # of timm's and torchvision's, which trained the weights
        )
        config.num_labels = num_classes
        super().__init__(config)
        self.input_shape = (3, image_size, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """`(n, 3, image_size, image_size)` images to `(n, num_classes)`."""
        return super().forward(pixel_values=images).logits

    def named_as_here(self, tensors: Mapping[str, Tensor]) -> Iterator[Named]:
        """A checkpoint of timm's or torchvision's layout by the names of this model."""
        for given, tensor in tensors.items():
            yield from _renamed(given, given, tensor, _VIT_RULES)


class ViTB16(_ViT):
    """ViT-B/16 (Dosovitskiy et al., ICLR 2021, table 1) of `transformers`, random weights.

    Weights load from checkpoints of torchvision's `vit_b_16`, timm's `vit_base_patch16_224` and
    DeiT-B. The model's own pixels are normalised as 'imagenet'; those of timm's `augreg` weights
    as 'signed'.

    Args:
        num_classes: outputs of the last layer.
        image_size: side of the square images, a multiple of 16.
        depth: blocks; 12 in the paper.
    """

    width = 768
    heads = 12


class ViTS16(_ViT):
    """ViT-S/16 (Touvron et al., DeiT, ICML 2021, table 1) of `transformers`, random weights.

    Weights load from checkpoints of timm's `vit_small_patch16_224` and DeiT-S; see `ViTB16`.

    Args:
        num_classes: outputs of the last layer.
        image_size: side of the square images, a multiple of 16.
        depth: blocks; 12 in the paper.
    """

    width = 384
    heads = 6


class SwinT(SwinForImageClassification):
    """Swin-T (Liu et al., ICCV 2021, table 7) of `transformers`, random weights.

    Weights load from checkpoints of torchvision's `swin_t`, timm's `swin_tiny_patch4_window7_224`
    and the authors'.

    Args:
        num_classes: outputs of the last layer.
        image_size: side of the square images; 224 or more, or windows shrink for good.
        depths: blocks in each of the four stages.
    """

    normalise = "imagenet"

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        depths: tuple[int, int, int, int] = (2, 2, 6, 2),
    ) -> None:
        config = SwinConfig(image_size=image_size, depths=depths)
        config.num_labels = num_classes
        super().__init__(config)
        self.input_shape = (3, image_size, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """`(n, 3, image_size, image_size)` images to `(n, num_classes)`."""
        return super().forward(pixel_values=images).logits

    def named_as_here(self, tensors: Mapping[str, Tensor]) -> Iterator[Named]:
        """A checkpoint of timm's, torchvision's or the authors' layout by this model's names."""
        merges_first = "layers.3.downsample.norm.weight" in tensors
        for given, tensor in tensors.items():
            if not given.endswith(_SWIN_CONSTANTS):
                name = _authors_swin_name(given, merges_first=merges_first)
                yield from _renamed(given, name, tensor, _SWIN_RULES)
