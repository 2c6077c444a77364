"""Whether partial sums fit the accumulators: bits that a layer's sums of int8 products need."""

import math
import weakref
from collections.abc import Mapping

import numpy as np

from accelerators import Accelerator, ConfigError
from accelerators.rules import refuse
from simulator.policies.activations import Activations
from workloads.errors import TraceError
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

# Magnitudes of int8 operands that are scaled to their largest; of a quantised layer's own inputs.
_LARGEST = 127
# Multiplications of a layer that are looked at, at most: seconds of one core.
_MOST_MACS = 2**36

_known: weakref.WeakKeyDictionary[WorkloadTrace, dict[str, int]] = weakref.WeakKeyDictionary()


def most_bits(layer: Layer) -> int:
    """Bits that hold any sum of a layer's int8 products: 1 + ceil(log2(k x 127 x 127 + 1))."""
    grid = layer.quantisation
    largest = _LARGEST if grid is None else 2**grid.bits - 1
    return _bits(layer.gemm.k * largest * _LARGEST)


def bits_of_sums(trace: WorkloadTrace, *, beyond: int = 0) -> Mapping[str, int]:
    """Layer -> bits that its partial sums need, found once a trace.

    An upper bound of every partial sum, in whatever order terms are added: the largest sum of
    |a| |w| over rows and columns, plus a sign bit, `1 + ceil(log2(sum + 1))`. Operands are int8:
    activations a are scaled so that the layer's largest is 127, weights w so that each column's
    is; a quantised layer's activations are its own integers. All rows are looked at, or of a layer
    with more than 2^36 multiplications as many, evenly spaced. Representatives of clusters, which
    are means of rows' parts, are not looked at apart: a sum of magnitudes leaves room for them.

    Args:
        trace: with tensors.
        beyond: layers that need no more than so many bits whatever their data are not looked at,
            and have what they need at most, see `most_bits`.

    Raises:
        TraceError: the trace lacks the tensors of a layer that is looked at.
    """
    known = _known.setdefault(trace, {})
    found = {}
    for layer in trace.layers:
        found[layer.name] = most_bits(layer)
        if found[layer.name] > beyond:
            if layer.name not in known:
                known[layer.name] = _bits(_largest_sum(trace, layer))
            found[layer.name] = min(found[layer.name], known[layer.name])
    return found


def check_sums(
    trace: WorkloadTrace, accelerator: Accelerator, known: Mapping[str, int] | None = None
) -> None:
    """The accumulators of a design for int8 operands must hold every partial sum.

    Args:
        trace: the workload; its data are looked at only where they decide.
        accelerator: the design; of other operands than int8 nothing is known, nor asked.
        known: what `bits_of_sums` found of the trace.

    Raises:
        ConfigError: a layer needs more bits, or nobody can tell.
    """
    has = accelerator.accumulator_bits
    in_doubt = [layer for layer in trace.layers if most_bits(layer) > has]
    if accelerator.operand_bits != 8 or not in_doubt:
        return
    if known is None:
        try:
            known = bits_of_sums(trace, beyond=has)
        except TraceError as error:
            most = max(map(most_bits, in_doubt))
            raise ConfigError(
                f"Accelerator.accumulator_bits must hold the sums of layer {in_doubt[0].name!r}, "
                f"of which no activations tell how large they are ({error}), got {has}; use "
                f"{_width(most)}, which holds any, or a trace with tensors"
            ) from error
    broken = {layer.name: known[layer.name] for layer in in_doubt if known[layer.name] > has}
    if broken:
        largest = max(broken, key=lambda name: broken[name])
        others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        refuse(
            [
                f"Accelerator.accumulator_bits must hold the sums of layer {largest!r}{others}, "
                f"which need {broken[largest]} bits on this workload, got {has}; use "
                f"{_width(broken[largest])} or more"
            ]
        )


def _bits(largest: float) -> int:
    return 1 + math.ceil(math.log2(largest + 1))


def _width(bits: int) -> int:
    """The least width of accumulators that holds so many bits."""
    return next((width for width in (16, 24, 32) if width >= bits), 48)


def _largest_sum(trace: WorkloadTrace, layer: Layer) -> float:
    """Of |a| |w| over rows and columns."""
    gemm = layer.gemm
    rows = Activations(layer, trace.given(layer.name)).rows
    step = max(1, math.ceil(gemm.macs / _MOST_MACS))
    largest = 0.0
    top = float(np.abs(rows).max(initial=0.0)) or 1.0
    for values, weights in zip(rows, trace.weights(layer.name), strict=True):
        columns = np.abs(weights).max(axis=0)
        steps = np.rint(np.abs(weights) * (_LARGEST / np.where(columns > 0, columns, 1)))
        if layer.quantisation is None:
            inputs = np.rint(np.abs(values[::step]) * (_LARGEST / top))
        else:
            inputs = np.abs(values[::step] + layer.quantisation.zero_point)
        sums = inputs.astype(np.float32, copy=False) @ steps.astype(np.float32, copy=False)
        largest = max(largest, float(sums.max(initial=0.0)))
    return largest
