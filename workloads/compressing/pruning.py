"""Magnitude pruning of a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.utils.prune import L1Unstructured

from workloads.errors import TraceError
from workloads.models.integer_grid import copied
from workloads.rules import number, problems, refuse

_FRACTION = number(below=1, fix="use 0.5 for half of the weights")


def prune(model: nn.Module, fraction: float | Mapping[str, float]) -> nn.Module:
    """Set the smallest weights of each convolution and linear layer to 0, for good.

    The first step of Deep Compression (Han, Mao and Dally, ICLR 2016), whose AlexNet Deep Reuse
    runs in its Table V; `quantise` is the second, and `quantisation_aware` learns with the zeros
    kept. Biases stay.

    The arrays that are modelled are dense: a zero is stored, moved and multiplied as any other
    weight. Pruning changes accuracy, and what reuse does to it, but no cycles and no energy.

    Args:
        model: left as it was.
        fraction: of each layer's weights to set to 0, 0 <= fraction < 1; or one per shell-style
            pattern of layer paths, of which the first that matches counts; the layers that none
            matches keep their weights.

    Returns:
        A pruned copy.

    Raises:
        TraceError: if the model has no such layer, a fraction is out of range, or a pattern matches
            no layer.
    """
    network, layers = copied(model)
    fractions = fraction if isinstance(fraction, Mapping) else {"*": fraction}
    given = {f"fraction of {pattern!r}": value for pattern, value in fractions.items()}
    broken = problems("prune.", given, dict.fromkeys(given, _FRACTION))
    broken += [
        f"prune.fraction pattern {pattern!r} must match a layer; layers are {', '.join(layers)}"
        for pattern in fractions
        if not any(fnmatchcase(path, pattern) for path in layers)
    ]
    refuse(broken, TraceError)
    for path, layer in layers.items():
        matching = (value for pattern, value in fractions.items() if fnmatchcase(path, pattern))
        smallest = L1Unstructured(amount=float(next(matching, 0.0)))
        layer.weight = nn.Parameter(smallest.prune(layer.weight.detach()))
    return network
