"""Running the model that a trace was captured of."""

from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators import ConfigError
from workloads.gemm import Gemm, Layer
from workloads.trace import WorkloadTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from workloads.hook import GemmCall

# How far outputs of a quantised model may differ between two machines, relative to the largest.
_STEP_TOLERANCE = 0.02


def check_model(trace: WorkloadTrace, model: "torch.nn.Module") -> None:
    """Without reuse the model must answer as it did when it was captured.

    Raises:
        ConfigError: it answers otherwise, or runs other layers.
    """
    from workloads.unchanged import is_remembered, remember

    if is_remembered(trace, model):
        return
    if _answers_first_image(trace, model):
        remember(trace, model)
        return
    answers = run_model(trace, model, lambda _: None)
    if (
        answers is not None
        and trace.outputs is not None
        and not _same(answers, trace.outputs, trace)
    ):
        raise ConfigError(
            "model must answer as it did when the trace was captured, got other outputs; pass the "
            "captured model with the same weights"
        )
    remember(trace, model)


def _answers_first_image(trace: WorkloadTrace, model: "torch.nn.Module") -> bool:
    """Whether the model answers the first of several images as before: a fraction of a whole run.

    `False` also where images can't be told apart, or the model takes a whole batch alone.
    """
    from workloads.replaying import replay

    inputs, outputs = trace.inputs, trace.outputs
    if trace.images == 1 or inputs is None or outputs is None:
        return False
    if any(len(array.shape) == 0 or len(array) != trace.images for array in (*inputs, outputs)):
        return False
    try:
        answer = replay(trace, model, lambda _: None, images=1)
    except (RuntimeError, ValueError):
        return False
    return answer is not None and _same(answer, outputs[:1], trace)


def _same(answers: np.ndarray, known: np.ndarray, trace: WorkloadTrace) -> bool:
    """Equal but for sums in another order; a model with other weights is off by far more.

    On a grid the last bit of a sum may move a value by a whole step.
    """
    stepped = any(layer.quantisation for layer in trace.layers)
    tolerance = _STEP_TOLERANCE * float(np.abs(known).max()) if stepped else 1e-3
    return answers.shape == known.shape and np.allclose(answers, known, rtol=1e-2, atol=tolerance)


def _check_rows(layer: Layer, known: "Mapping[str, tuple[Gemm, Any]]") -> None:
    """A model that chooses by its inputs which rows a layer gets can't be replayed under reuse."""
    if layer.name not in known:
        return
    gemm, then = layer.gemm, known[layer.name][0]
    if gemm != then and (gemm.n, gemm.k, gemm.count) == (then.n, then.k, then.count):
        raise ConfigError(
            f"model must send as many rows to layer {layer.name!r} as when it was captured, got "
            f"{gemm.m} instead of {then.m}: it chooses by values that reuse changes, as a mixture "
            "of experts does; simulate it without the model, then each layer's reuse is decided on "
            "its recorded rows"
        )


def run_model(
    trace: WorkloadTrace,
    model: "torch.nn.Module",
    answer: "Callable[[GemmCall], torch.Tensor | None]",
) -> np.ndarray | None:
    """Run the model on the trace's inputs with every product's result replaced.

    Args:
        trace: of the model.
        model: the captured model.
        answer: gives a product's result, or `None` to compute it.

    Raises:
        ConfigError: the model runs other layers than the trace has.
        TraceError: the trace has no inputs.
    """
    from workloads.replaying import replay  # the only part that needs PyTorch

    known = {layer.name: (layer.gemm, layer.quantisation) for layer in trace.layers}
    asked = set()

    def on_gemm(call):
        layer = call.layer
        _check_rows(layer, known)
        if known.get(layer.name) != (layer.gemm, layer.quantisation):
            raise ConfigError(
                f"model must run the layers of the trace, got {layer.name!r} of {layer.gemm} in "
                f"{layer.quantisation or 'floating point'}; pass the model that was captured"
            )
        asked.add(layer.name)
        return answer(call)

    outputs = replay(trace, model, on_gemm)
    missing = [name for name in known if name not in asked]
    if missing:
        raise ConfigError(
            f"model must run the layers of the trace, got none called {', '.join(missing)}; "
            "pass the model that was captured"
        )
    return outputs
