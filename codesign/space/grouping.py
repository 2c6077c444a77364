"""Groups of layers for which a search chooses one technique together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase

from accelerators import ConfigError
from accelerators.rules import show
from workloads.traces.layer import Layer

GROUPINGS = ("stage", "layer", "all")
"""How layers are grouped without patterns: by the shape of their results, each alone, or all."""

Groups = dict[str, tuple[str, ...]]


def groups_of(layers: Sequence[Layer], by: str, most: int) -> Groups:
    """Name of a group -> its layers, in call order.

    Args:
        layers: with rows to share.
        by: `stage` groups the layers of one kernel whose results have one shape, as those of a
            network's stage do; `layer` leaves each alone; `all` makes one group; else shell-style
            patterns of layer names, `"layer1.*,layer2.*"`, each a group of the layers that no
            pattern before it matches.
        most: groups at most, those with the most multiply-accumulates; layers of others run dense.
            Patterns are all taken.

    Raises:
        ConfigError: a pattern matches no layer that is left.
    """
    match by:
        case "layer":
            found: Groups = {layer.name: (layer.name,) for layer in layers}
        case "all":
            found = {"all": tuple(layer.name for layer in layers)}
        case "stage":
            found = _stages(layers)
        case _:
            return _by_patterns(layers, [each.strip() for each in by.split(",")])
    macs = {layer.name: layer.gemm.macs for layer in layers}
    largest = sorted(found, key=lambda name: -sum(macs[each] for each in found[name]))[:most]
    return {name: each for name, each in found.items() if name in largest}


def _stages(layers: Sequence[Layer]) -> Groups:
    by_shape: dict[tuple, list[str]] = {}
    for layer in layers:
        kernel = None if layer.convolution is None else layer.convolution.kernel
        size = layer.output_shape[1:] if layer.convolution is not None else (layer.gemm.n,)
        # What a first layer reads, of few channels, is like no other's.
        shape = (layer.kind, kernel, size, has_few_channels(layer))
        by_shape.setdefault(shape, []).append(layer.name)
    return {_called(names): tuple(names) for names in by_shape.values()}


def has_few_channels(layer: Layer) -> bool:
    """Whether it is a convolution of at most four channels, as a network's first layer is."""
    return layer.convolution is not None and layer.input_shape[1] <= 4


def has_one_tap(layer: Layer) -> bool:
    """Whether it is a convolution of one tap, which looks at each vector for itself alone."""
    return layer.convolution is not None and math.prod(layer.convolution.kernel) == 1


def _called(names: Sequence[str]) -> str:
    """After the first, and how many follow: `layer1.0.conv1+3`."""
    return names[0] if len(names) == 1 else f"{names[0]}+{len(names) - 1}"


def _by_patterns(layers: Sequence[Layer], patterns: Sequence[str]) -> Groups:
    left = [layer.name for layer in layers]
    found: Groups = {}
    for pattern in patterns:
        own = tuple(name for name in left if name == pattern or fnmatchcase(name, pattern))
        if not own:
            names = ", ".join(layer.name for layer in layers)
            raise ConfigError(
                f"grouping must be {', '.join(GROUPINGS)} or patterns of layers with rows to "
                f"share, each of some that no other took, got {show(pattern)}; layers are "
                f"{names}"
            )
        found[pattern] = own
        left = [name for name in left if name not in own]
    return found
