"""Post-training quantisation of a model to 8-bit integers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import HistogramObserver

from workloads.capturing.flow import tensors_in
from workloads.capturing.hook import arguments_from
from workloads.errors import TraceError
from workloads.models.integer_grid import (
    HIGH,
    LOW,
    InputGrid,
    WeightedLayer,
    copied,
    on_weight_grid,
    output_axis,
    read_through,
)
from workloads.models.modes import training_mode
from workloads.traces.trace import WorkloadTrace


def quantise(model: nn.Module, calibration: Any) -> nn.Module:
    """Quantise the convolutions and linear layers of a trained model to 8 bits.

    Weights become multiples q * scale of one scale per output channel, q from -127 to 127. The
    input of each layer goes through an affine grid of 256 values, one for the whole tensor, whose
    range PyTorch's `HistogramObserver` chooses for the least squared error on the calibration
    inputs. After a ReLU the zero point is 0.

    Everything stays float32 tensors that hold those values exactly, and layers keep their names, so
    capture, reuse and training see the model as before. Biases stay float32: an array adds them to
    its 32-bit sums, whose steps are far finer than those of 8 bits. What is not such a layer
    (attention's own products, normalisation, activation functions), and layers that the
    calibration inputs don't reach, stay in floating point.

    Args:
        model: left as it was. A layer that is called several times has one grid for all calls.
        calibration: what the model is called with, best not the inputs that it is judged on: a
            tensor, several (by position) or a mapping (by name); see
            `workloads.capturing.hook.run_with`.

    Returns:
        A quantised copy in evaluation mode.

    Raises:
        TraceError: if the model has no such layer, or the calibration inputs are empty or give a
            layer NaN or infinity.
    """
    network, layers = copied(model)
    grids = _calibrated(network, layers, calibration)
    return _on_grids(network, layers, grids)


def quantise_as(model: nn.Module, trace: WorkloadTrace) -> nn.Module:
    """Quantise a model as it was when a trace was captured of it.

    Args:
        model: in floating point, with the weights it had; left as it was.
        trace: of the quantised model.

    Returns:
        A quantised copy in evaluation mode.

    Raises:
        TraceError: if the model lacks a quantised layer of the trace.
    """
    network, layers = copied(model)
    grids = {}
    for layer in trace.layers:
        if layer.quantisation is not None:
            grid = layer.quantisation
            path = "" if "" in layers else layer.name.partition("#")[0]
            grids[path] = InputGrid(torch.tensor(grid.scale), torch.tensor(grid.zero_point))
    absent = [path for path in grids if path not in layers]
    if absent:
        raise TraceError(
            f"model must have the quantised layers of the trace, got none called "
            f"{', '.join(absent)}; pass the model that was captured"
        )
    return _on_grids(network, layers, grids)


def _on_grids(
    network: nn.Module, layers: Mapping[str, WeightedLayer], grids: Mapping[str, nn.Module]
) -> nn.Module:
    """Put the weights of the layers that have a grid on one too."""
    for path, grid in grids.items():
        layer = layers[path]
        read_through(layer, grid)
        with torch.no_grad():
            # A parameter of its own: the old one may serve an embedding too.
            layer.weight = nn.Parameter(on_weight_grid(layer.weight, output_axis(layer)))
    return network.eval()


def _calibrated(
    network: nn.Module, layers: Mapping[str, WeightedLayer], calibration: Any
) -> dict[str, InputGrid]:
    """A grid for the input of every layer that the calibration inputs reach."""
    observers = {
        path: HistogramObserver(
            dtype=torch.quint8, qscheme=torch.per_tensor_affine, quant_min=LOW, quant_max=HIGH
        )
        for path in layers
    }
    seen = observe_inputs(network, layers, observers, calibration)
    return {path: InputGrid(*observers[path].calculate_qparams()) for path in seen}


def observe_inputs(
    network: nn.Module,
    layers: Mapping[str, WeightedLayer],
    observers: Mapping[str, nn.Module],
    calibration: Any,
) -> list[str]:
    """Show each layer's observer what the layer reads on the calibration inputs.

    Returns:
        The paths of the layers that were reached, in the order of `layers`.

    Raises:
        TraceError: if the inputs are empty, a layer's input isn't finite, or no layer was reached.
    """
    args, kwargs = arguments_from(calibration)
    given = list(tensors_in([args, kwargs]))
    if not given or any(tensor.numel() == 0 for tensor in given):
        raise TraceError(
            f"calibration must hold at least one input, got shapes "
            f"{[tuple(tensor.shape) for tensor in given]}; pass a batch that isn't empty"
        )
    seen = set()

    def watch(path: str) -> Any:
        def before(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            values: Tensor = args[0] if args else kwargs["input"]
            if not bool(values.isfinite().all()):
                raise TraceError(
                    f"layer {path!r} must have a finite input to be calibrated, got NaN or "
                    "infinity; check the calibration inputs and the model up to this layer"
                )
            observers[path](values.detach())
            seen.add(path)

        return before

    with ExitStack() as stack:
        for path, layer in layers.items():
            stack.enter_context(layer.register_forward_pre_hook(watch(path), with_kwargs=True))
        stack.enter_context(training_mode(network, False))
        stack.enter_context(torch.no_grad())
        network(*args, **kwargs)
    if not seen:
        raise TraceError(
            f"calibration must reach a convolution or linear layer of {type(network).__name__}, "
            "got none; call the model as it is captured"
        )
    return [path for path in layers if path in seen]
