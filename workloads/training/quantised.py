"""Quantisation-aware training: a classifier that learns on its 8-bit grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver
from torch.nn.utils import parametrize

from workloads.compressing.quantising import observe_inputs
from workloads.models.integer_grid import (
    HIGH,
    INPUT_GRID,
    LOW,
    InputGrid,
    WeightedLayer,
    copied,
    on_weight_grid,
    output_axis,
    read_through,
)
from workloads.streams import ImageSet
from workloads.training.classifier import EpochReport, TrainingResult, train_classifier


def quantisation_aware(
    model: nn.Module,
    train: ImageSet,
    test: ImageSet,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    optimizer: str = "adam",
    weight_decay: float = 0.0,
    augment: str = "none",
    seed: int = 0,
    progress: bool | Callable[[EpochReport], None] = False,
) -> tuple[nn.Module, TrainingResult]:
    """Fine-tune a trained classifier whose layers are quantised while it learns.

    Each step computes with weights and inputs on the grids of `workloads.quantise`, and passes
    gradients straight through the rounding (Jacob et al., CVPR 2018; PyTorch's `FakeQuantize`).
    A layer's input range is a moving average over the training batches; in evaluation it stands
    still. Weights that are 0 at the start, as pruning leaves them, stay 0.

    Args:
        model: left as it was.
        train: images with labels to learn from; the first batch tells the input ranges.
        test: images with labels for the final accuracy.
        epochs, batch_size, learning_rate, optimizer, weight_decay, augment, seed, progress: as for
            `train_classifier`; the learning rate is that of fine-tuning.

    Returns:
        A quantised copy in evaluation mode, as `workloads.quantise` makes it, and what training it
        achieved; its accuracy is the quantised copy's.

    Raises:
        TrainingError: as `train_classifier`.
        TraceError: as `workloads.quantise`.
    """
    first = train.take(min(len(train), batch_size)) if batch_size > 0 else train
    network = with_learned_grids(model, first.images)
    result = train_classifier(
        network,
        train,
        test,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,
        weight_decay=weight_decay,
        augment=augment,
        seed=seed,
        progress=progress,
    )
    fix_grids(network)
    return network, result


def with_learned_grids(model: nn.Module, inputs: Any) -> nn.Module:
    """A copy of a model whose layers compute on their 8-bit grids while they learn.

    Args:
        model: left as it was; its layers may be quantised already.
        inputs: tell the first input ranges, see `workloads.quantise`.

    Raises:
        TraceError: as `workloads.quantise`.
    """
    network, layers = copied(model)
    grids = {path: _LearnedGrid() for path in layers}
    for path in observe_inputs(network, layers, grids, inputs):
        layer = layers[path]
        read_through(layer, grids[path])
        parametrize.register_parametrization(
            layer, "weight", _LearnedWeight(layer.weight, output_axis(layer))
        )
    return network


def fix_grids(network: nn.Module) -> None:
    """End the learning of `with_learned_grids`: as `workloads.quantise` makes it, in place."""
    for layer in network.modules():
        grid = getattr(layer, INPUT_GRID, None)
        if isinstance(grid, _LearnedGrid):
            assert isinstance(layer, WeightedLayer)
            read_through(layer, InputGrid(*grid.calculate_qparams()))
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    network.eval()


class _LearnedGrid(FakeQuantize):
    """An input grid whose range follows the inputs in training and stands still in evaluation."""

    def __init__(self) -> None:
        super().__init__(
            observer=MovingAverageMinMaxObserver,
            quant_min=LOW,
            quant_max=HIGH,
            dtype=torch.quint8,
            qscheme=torch.per_tensor_affine,
        )

    def train(self, mode: bool = True) -> Self:
        self.enable_observer(mode)
        return super().train(mode)


class _LearnedWeight(nn.Module):
    """From weights as they are trained to weights on their grid; zeros stay zeros."""

    kept: Tensor

    def __init__(self, weight: Tensor, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("kept", weight.detach() != 0)

    def forward(self, weight: Tensor) -> Tensor:
        """The weights to compute with, of the same shape."""
        return on_weight_grid(weight * self.kept, self.axis)
