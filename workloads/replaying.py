"""Running a captured model again on the inputs of its trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from workloads.capturing import answer_of
from workloads.errors import TraceError
from workloads.hook import OnGemm, run_with
from workloads.trace import WorkloadTrace


def replay(trace: WorkloadTrace, model: Callable[..., Any], on_gemm: OnGemm) -> np.ndarray | None:
    """Run `model` on the inputs that the trace was captured with, without gradients.

    Args:
        trace: holds the inputs.
        model: the captured model.
        on_gemm: asked for the result of every matrix product, as in `run_with`.

    Returns:
        What `trace.outputs` holds of the captured run: the model's first tensor.

    Raises:
        TraceError: the trace holds no inputs, or as `run_with`.
    """
    inputs = recorded_inputs(trace)
    with torch.no_grad():
        return answer_of(run_with(model, inputs, on_gemm, images=trace.images))


def recorded_inputs(trace: WorkloadTrace) -> tuple[torch.Tensor, ...] | dict[str, torch.Tensor]:
    """Copies of what the captured model was called with: by position, or by name.

    Raises:
        TraceError: the trace holds no inputs.
    """
    if trace.inputs is None:
        raise TraceError(
            "WorkloadTrace must hold the model's inputs to run it again, got none; capture the "
            "model instead of building the trace from shapes"
        )
    # Copies, which the model may write to.
    tensors = [torch.tensor(array) for array in trace.inputs]
    dtypes = trace.provenance.get("input_dtypes")
    if dtypes:
        tensors = [x.to(getattr(torch, name)) for x, name in zip(tensors, dtypes, strict=True)]
    names = trace.provenance.get("input_names")
    return dict(zip(names, tensors, strict=True)) if names else tuple(tensors)
