"""8-bit integers inside a model that computes in floating point.

A quantised layer reads `scale * (q - zero_point)` with whole q from 0 to 255, and its weights are
multiples of one scale per output channel. Products of such numbers are those of an int8 array up to
the rounding of float32 sums, so that everything here that sees a convolution or linear layer sees
it as before.

Observers come from `torch.ao.quantization`. PyTorch moves them, unchanged, to torchao
(`torchao.quantization.pt2e`) and has warned that it will drop them; what a finished model needs is
in PyTorch's core. torchao's own flows don't serve here: one quantises linear layers alone, the
other exports a graph in which a layer no longer has its name.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import PerChannelMinMaxObserver

from workloads.errors import TraceError
from workloads.rules import refuse
from workloads.traces.layer import Quantisation

BITS = 8
LOW, HIGH = 0, 2**BITS - 1  # of activations; a zero point makes room for negative ones
WEIGHT_TOP = 2 ** (BITS - 1) - 1  # weights are symmetric: -127 to 127
INPUT_GRID = "input_grid"

WeightedLayer = nn.modules.conv._ConvNd | nn.Linear


class InputGrid(nn.Module):
    """Moves a layer's input to the nearest of 256 evenly spaced values.

    Args:
        scale: `(1,)` float32 distance of two values.
        zero_point: `(1,)` the integer, 0 to 255, that stands for 0.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().to(torch.float32).reshape(1))
        self.register_buffer("zero_point", zero_point.detach().to(torch.int32).reshape(1))

    @property
    def quantisation(self) -> Quantisation:
        """What the integers stand for."""
        return Quantisation(scale=float(self.scale), zero_point=int(self.zero_point), bits=BITS)

    def forward(self, values: Tensor) -> Tensor:
        """`scale * (q - zero_point)` nearest to the values; gradients pass straight through."""
        return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, LOW, HIGH)


def quantisation_of(module: object) -> Quantisation | None:
    """The integers that a module's input stands for; `None` in floating point."""
    grid = getattr(module, INPUT_GRID, None)
    return grid.quantisation if isinstance(grid, InputGrid) else None


def is_quantised(network: nn.Module) -> bool:
    """Whether a layer of the network reads its input through a grid."""
    return any(quantisation_of(module) is not None for module in network.modules())


def read_through(layer: WeightedLayer, quantiser: nn.Module) -> None:
    """Let `layer` read its input through `quantiser`, replacing the one that is there."""
    present = hasattr(layer, INPUT_GRID)
    setattr(layer, INPUT_GRID, quantiser)
    if not present:
        layer.register_forward_pre_hook(_through_the_grid, with_kwargs=True)


def _through_the_grid(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    quantiser = getattr(layer, INPUT_GRID)
    if args:
        return (quantiser(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "input": quantiser(kwargs["input"])}


def output_axis(layer: WeightedLayer) -> int:
    """The dimension of a layer's weight that holds its output channels."""
    return 1 if getattr(layer, "transposed", False) else 0


def on_weight_grid(weight: Tensor, axis: int) -> Tensor:
    """The weights as multiples q * scale, -127 <= q <= 127, with a scale per output channel.

    Args:
        weight: as PyTorch keeps it.
        axis: as `output_axis` tells it.

    Returns:
        A tensor of the same shape; gradients pass straight through.
    """
    observer = PerChannelMinMaxObserver(
        ch_axis=axis,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        quant_min=-WEIGHT_TOP,
        quant_max=WEIGHT_TOP,
    )
    observer(weight.detach())
    scale, zero_point = (each.to(weight.device) for each in observer.calculate_qparams())
    return torch.fake_quantize_per_channel_affine(
        weight, scale, zero_point.to(torch.int32), axis, -WEIGHT_TOP, WEIGHT_TOP
    )


def copied(model: nn.Module) -> tuple[nn.Module, dict[str, WeightedLayer]]:
    """A copy of a model, and its convolutions and linear layers by path.

    Raises:
        TraceError: if there is none, or one whose weights are not a float32 parameter of its own.
    """
    if not isinstance(model, nn.Module):
        raise TraceError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; wrap it in one"
        )
    found = weighted_layers(model)
    if not found:
        raise TraceError(
            f"model {type(model).__name__} must have a convolution or a linear layer, got none; "
            "use torch.nn.Conv2d, torch.nn.Linear or the like"
        )
    broken = []
    for path, module in found.items():
        weight = module._parameters.get("weight")
        if weight is None:
            broken.append(
                f"layer {path!r} must have its weight as a parameter, got one that is computed; "
                "make it permanent first (torch.nn.utils.parametrize.remove_parametrizations, "
                "prune.remove or remove_weight_norm)"
            )
        elif nn.parameter.is_lazy(weight) or weight.dtype != torch.float32:
            broken.append(
                f"layer {path!r} must have float32 weights, got {weight.dtype}; run a lazy module "
                "once, or call model.float() first"
            )
        elif not bool(weight.isfinite().all()):
            broken.append(
                f"layer {path!r} must have finite weights, got NaN or infinity; check the model's "
                "parameters"
            )
    refuse(broken, TraceError)
    network = copy.deepcopy(model)
    return network, weighted_layers(network)


def weighted_layers(model: nn.Module) -> dict[str, WeightedLayer]:
    """The convolutions and linear layers of a model by path."""
    return {
        path: module for path, module in model.named_modules() if isinstance(module, WeightedLayer)
    }
