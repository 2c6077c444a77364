"""Random initial weights that keep the size of activations."""

from __future__ import annotations

from torch import nn


def he_normal(model: nn.Module) -> None:
    """Draw weights of deviation sqrt(2 / fan_in), with zero biases (He et al., ICCV 2015, eq. 10).

    With PyTorch's defaults the activations of a deep network without trained normalisation shrink
    by 0.4 a layer, and what is captured of it is near zero. Those of a residual network grow
    instead, by sqrt(2) a block.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
