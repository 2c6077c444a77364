"""Feature boosting and suppression: convolutions that choose their channels for each image."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn import functional

from workloads.models.errors import ModelError
from workloads.models.resnet_cifar import ResNet20
from workloads.rules import problems, refuse, true_of

BOOSTED, GATE = "boosted", "gate"
"""What the convolution and its gate are called within a `BoostedConv2d`, so in a trace."""

_DENSITY = true_of(
    lambda given: type(given) in (int, float) and 0 < given <= 1,
    "be a number above 0 and at most 1",
    "use 1 to keep all channels",
)
_LEAST_SCALE = 1e-3


class BoostedConv2d(nn.Module):
    """A convolution whose output channels are scaled by what its input shows, or left out.

    Gao et al., "Dynamic channel pruning: feature boosting and suppression", ICLR 2019:
    s_c = mean |x_c| over the positions of input channel c; g = ReLU(s Phi + b), one value an output
    channel; the ceil(density n) largest of an image are kept, the others are 0; the output is
    g_c norm(conv(x))_c, with a batch normalisation without scale, whose place g takes.

    b is the last row of the gate's weights, for an input of 1, so that the gate is one product of
    C + 1 by n and a trace holds all of it.

    Args:
        convolution: of one group.
        norm: batch normalisation that follows it, if any; its scale becomes b.
        density: fraction of the output channels that an image keeps, above 0 to 1.
    """

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d | None, density: float) -> None:
        super().__init__()
        self.boosted = convolution
        self.norm: nn.Module = nn.Identity() if norm is None else norm
        self.gate = nn.Linear(convolution.in_channels + 1, convolution.out_channels, bias=False)
        self.density = density
        with torch.no_grad():
            self.gate.weight.zero_()
            self.gate.weight[:, -1] = 1
            if norm is not None and norm.affine:
                scale = norm.weight.abs().clamp_min(_LEAST_SCALE)
                self.gate.weight[:, -1] = scale
                norm.bias.div_(scale)
                norm.weight.copy_(torch.where(norm.weight < 0, -1.0, 1.0))
                norm.weight.requires_grad_(False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(n, C, h, w)` to the convolution's shape; channels that are left out are 0."""
        seen = functional.pad(features.abs().mean(dim=(2, 3)), (0, 1), value=1.0)
        gains = torch.relu(self.gate(seen))
        number_kept = math.ceil(self.density * gains.shape[1])
        if number_kept < gains.shape[1]:
            least = gains.topk(number_kept, dim=1).values[:, -1:]
            gains = gains * (gains >= least)
        return gains[:, :, None, None] * self.norm(self.boosted(features))


def boost(model: nn.Module, density: float = 1.0) -> nn.Module:
    """A copy of a network in which convolutions choose their channels, see `BoostedConv2d`.

    A batch normalisation that is registered right after a convolution, of as many channels, becomes
    part of it. Gates begin at the scales of normalisation whatever the input, so that with density
    1 the copy answers as the model; the rest is to be learned, by any training of the copy. Layers
    that see images (three channels or fewer) and convolutions of groups stay as they are.

    Args:
        model: left as it was.
        density: see `BoostedConv2d`.

    Raises:
        ModelError: the density is out of range, or no convolution can be boosted.
    """
    refuse(problems("boost.", {"density": density}, {"density": _DENSITY}), ModelError)
    network, found = copy.deepcopy(model), 0
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for place, (name, child) in enumerate(children):
            if not isinstance(child, nn.Conv2d) or child.groups > 1 or child.in_channels <= 3:
                continue
            after_name, after = children[place + 1] if place + 1 < len(children) else ("", None)
            norm = None
            if isinstance(after, nn.BatchNorm2d) and after.num_features == child.out_channels:
                norm = after
                setattr(parent, after_name, nn.Identity())
            setattr(parent, name, BoostedConv2d(child, norm, density))
            found += 1
    if not found:
        raise ModelError(
            "boost.model must have a convolution of one group that sees more than 3 channels, got "
            f"none in {type(model).__name__}; give a convolutional network"
        )
    return network


def set_density(model: nn.Module, density: float) -> None:
    """Let every `BoostedConv2d` of a network keep another fraction of its channels.

    Raises:
        ModelError: the density is out of range.
    """
    refuse(problems("set_density.", {"density": density}, {"density": _DENSITY}), ModelError)
    for module in model.modules():
        if isinstance(module, BoostedConv2d):
            module.density = density


def boosted_resnet20(density: float = 0.5, num_classes: int = 10) -> nn.Module:
    """ResNet-20 for CIFAR-10 whose convolutions but the first choose their channels.

    Args:
        density: see `BoostedConv2d`.
        num_classes: outputs of the last layer.
    """
    return boost(ResNet20(num_classes), density)
