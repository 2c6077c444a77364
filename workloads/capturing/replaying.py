"""Running a captured model again on the inputs of its trace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from workloads.capturing.answers import judged_array
from workloads.capturing.call_structure import CALL, called_as
from workloads.capturing.hook import OnGemm, run_with
from workloads.capturing.random_numbers import Draws, seeded
from workloads.errors import TraceError, show
from workloads.traces.trace import WorkloadTrace


def replay(
    trace: WorkloadTrace,
    model: Callable[..., Any],
    on_gemm: OnGemm,
    *,
    images: int | None = None,
    draws: Draws | None = None,
) -> np.ndarray | None:
    """Run `model` on the inputs that the trace was captured with, without gradients.

    Random numbers are those of the captured run, if it had a seed.

    Args:
        trace: holds the inputs.
        model: the captured model.
        on_gemm: asked for the result of every matrix product, as in `run_with`.
        images: run on the first ones only; None runs on all.
        draws: told whether the model draws random numbers.

    Returns:
        What `trace.outputs` holds of the captured run: the model's judged output.

    Raises:
        TraceError: the trace holds no inputs, or as `run_with`.
    """
    inputs = recorded_inputs(trace, images)
    with torch.no_grad(), ExitStack() as stack:
        stack.enter_context(seeded(seed_of(trace)))
        if draws is not None:
            stack.enter_context(draws)
        result = run_with(model, inputs, on_gemm, images=images or trace.images)
    return judged_array(result, trace.provenance)


def seed_of(trace: WorkloadTrace) -> int | None:
    """The seed of the captured run; None if it had none."""
    seed = trace.provenance.get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def recorded_inputs(
    trace: WorkloadTrace, images: int | None = None
) -> tuple[Any, ...] | dict[str, Any]:
    """Copies of what the captured model was called with: by position, or by name.

    Args:
        trace: holds the inputs.
        images: of inputs with images along the first dimension, the first ones only.

    Raises:
        TraceError: the trace holds no inputs, or not all that the model was called with, or names
            types that PyTorch lacks.
    """
    if trace.inputs is None:
        raise TraceError(
            "WorkloadTrace must hold the model's inputs to run it again, got none; capture the "
            "model instead of building the trace from shapes"
        )
    # Copies, which the model may write to.
    tensors = [torch.tensor(array[:images] if images else array) for array in trace.inputs]
    dtypes = trace.provenance.get("input_dtypes")
    if dtypes:
        tensors = [x.to(_dtype(name)) for x, name in zip(tensors, dtypes, strict=True)]
    call = trace.provenance.get(CALL)
    if call is not None:
        args, kwargs = called_as(call, tensors)
        return kwargs or args
    names = trace.provenance.get("input_names")
    if not names:
        return tuple(tensors)
    if len(names) != len(tensors):
        raise TraceError(
            f"WorkloadTrace.provenance.input_names must name {len(tensors)} inputs to run the "
            f"model again, got {show(names)}; capture it with tensors alone"
        )
    return dict(zip(names, tensors, strict=True))


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if isinstance(found, torch.dtype):
        return found
    raise TraceError(
        f"WorkloadTrace.provenance.input_dtypes must name types of PyTorch, got {show(name)}; "
        "capture the trace again"
    )
