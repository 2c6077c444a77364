"""What similarity-aware training adds to a task's loss, of the outputs of a network's layers.

Treasure ("Treasure What You Have") prints its equations 1 and 2 as pictures that its text lacks;
the terms here are this project's reading of the words around them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from workloads.models.integer_grid import WeightedLayer, output_axis, weighted_layers
from workloads.training.classifier import TrainingError

DIRECTIONS = ("from_output", "from_reference")


@dataclass(kw_only=True)
class SimilarityTerms:
    """The KL terms of one forward pass, in nats; `None` if not asked for.

    Attributes:
        intra: R1, of every frame to the mean over the training set; the mean over frames.
        inter: R2, of every frame to the frame before it in its clip; the mean over such pairs.
    """

    intra: Tensor | None = None
    inter: Tensor | None = None


class LayerOutputs:
    """Watches the outputs of a network's convolutions and linear layers, with their gradients.

    An output F of a frame is taken as a distribution, softmax(vec F / T). Treasure, equation 1, is
    read as R1 = sum over layers of KL(softmax(vec F) || softmax(vec mean F)), and equation 2 as the
    same of the outputs on consecutive frames. No gradient flows into the mean, which is a constant
    of the step; it flows into both frames of a pair.

    The mean over the training set runs along: it is the mean of all frames seen until there were
    `window` of them, and from then on forgets at the rate of 1 / window a frame, because outputs of
    older weights say little. It includes the frames of the step.

    Args:
        network: its layers are those of `workloads.quantise`. A layer's output must hold the frames
            along its first dimension, outermost where that is longer (as windows of attention do).
        temperature: T, > 0; a higher one evens the distributions out.
        direction: `from_output` is KL(output || reference), the reference being the mean or the
            frame before; `from_reference` is KL(reference || output).
        window: frames of one pass over the training set.

    Attributes:
        means: layer name -> mean output, of the shape of one frame's output as a vector. A layer
            that is called again in a pass is called `name#2` and so on, as in traces.
        seen: layer name -> frames that went into it.
    """

    def __init__(
        self, network: nn.Module, *, temperature: float, direction: str, window: int
    ) -> None:
        self.means: dict[str, Tensor] = {}
        self.seen: dict[str, int] = {}
        self._layers = weighted_layers(network)
        self._temperature = temperature
        self._direction = direction
        self._window = window

    @contextmanager
    def watch(
        self, *, clips: int, frames: int, intra: bool, inter: bool
    ) -> Iterator[SimilarityTerms]:
        """Fill the terms asked for while the network runs on `clips` clips of `frames` frames each.

        Raises:
            TrainingError: if a layer's output doesn't hold the frames, or changes its shape.
        """
        terms = SimilarityTerms()
        calls: dict[str, int] = {}

        def see(path: str, output: Tensor) -> None:
            calls[path] = calls.get(path, 0) + 1
            name = path if calls[path] == 1 else f"{path}#{calls[path]}"
            if len(output) % (clips * frames):
                raise TrainingError(
                    f"layer {name!r} must give its output for {clips * frames} frames along the "
                    f"first dimension, got shape {tuple(output.shape)}; train without the "
                    "similarity terms, or with a model that keeps frames apart"
                )
            # At once: what comes after the layer may write to its output.
            flat = output.reshape(clips * frames, -1)
            flat = flat if flat.dtype == torch.float64 else flat.float()
            logs = log_softmax(flat / self._temperature, dim=1)
            if intra:
                mean = self._moved_mean(name, flat.detach())
                reference = log_softmax(mean / self._temperature, dim=0)
                divergence = self._divergence(logs, reference.expand_as(logs))
                terms.intra = divergence + (0 if terms.intra is None else terms.intra)
            if inter:
                of_clips = logs.reshape(clips, frames, -1)
                later, earlier = of_clips[:, 1:].flatten(0, 1), of_clips[:, :-1].flatten(0, 1)
                divergence = self._divergence(later, earlier)
                terms.inter = divergence + (0 if terms.inter is None else terms.inter)

        with ExitStack() as stack:
            if intra or inter:
                for path, layer in self._layers.items():
                    stack.callback(layer.register_forward_hook(_told(see, path)).remove)
            yield terms

    def _moved_mean(self, name: str, flat: Tensor) -> Tensor:
        """The running mean of a layer, with the `(frames, size)` outputs taken in."""
        mean = self.means.setdefault(name, torch.zeros_like(flat[0]))
        if mean.shape != flat.shape[1:]:
            raise TrainingError(
                f"layer {name!r} must give outputs of one size, got {flat.shape[1]} values after "
                f"{len(mean)}; use frames of one size"
            )
        self.seen[name] = self.seen.get(name, 0) + len(flat)
        return mean.lerp_(
            flat.mean(dim=0), min(1.0, len(flat) / min(self.seen[name], self._window))
        )

    def _divergence(self, outputs: Tensor, references: Tensor) -> Tensor:
        """Mean KL divergence of `(n, size)` logarithms of distributions, in nats."""
        match self._direction:
            case "from_output":
                first, second = outputs, references
            case "from_reference":
                first, second = references, outputs
            case _:
                raise TrainingError(
                    f"direction must be one of {', '.join(DIRECTIONS)}, got {self._direction!r}"
                )
        return kl_div(second, first, reduction="batchmean", log_target=True)


def _told(see: Any, path: str) -> Any:
    """A forward hook that tells `see` of a layer's output."""

    def after(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        see(path, output)

    return after


def cluster_average_loss(layers: Mapping[str, WeightedLayer], *, hashes: int, seed: int) -> Tensor:
    """How far weights are from the average of their cluster, a scalar.

    Treasure, step 4 of its approach, gives no equation: "the difference between the weights in each
    cluster and the average weight for that cluster". Read here as: the weights of an output channel
    are one vector; a layer's vectors with equal signatures under `hashes` random hyperplanes are a
    cluster; the loss is the mean squared difference of a weight to its cluster's average, summed
    over layers.

    Args:
        layers: by path.
        hashes: hyperplanes; a layer has at most 2^hashes clusters.
        seed: of the hyperplanes; a layer's own are drawn from it and the layer's path.
    """
    total: Tensor | float = 0.0
    for path, layer in layers.items():
        vectors = layer.weight.movedim(output_axis(layer), 0).flatten(1)
        generator = torch.Generator().manual_seed((seed << 32) + zlib.crc32(path.encode()))
        planes = torch.randn(vectors.shape[1], hashes, generator=generator).to(vectors)
        _, ids = torch.unique(vectors.detach() @ planes > 0, dim=0, return_inverse=True)
        members = nn.functional.one_hot(ids).to(vectors)
        averages = members.T @ vectors / members.sum(dim=0)[:, None]
        total = total + (vectors - averages[ids]).square().mean()
    return torch.as_tensor(total)
