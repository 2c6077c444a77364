"""Whether partial sums fit the accumulators: bits that a layer's sums of int8 products need."""

import math
import weakref
import zlib
from collections.abc import Mapping, MutableMapping

import numpy as np

from accelerators import Accelerator, ConfigError
from accelerators.rules import refuse
from simulator.decisions.box import Decisions
from simulator.decisions.rows import SharedRows
from simulator.policies.activations import Activations
from workloads.errors import TraceError
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

# Magnitudes of int8 operands that are scaled to their largest; of a quantised layer's own inputs.
_LARGEST = 127
# Bits more than whole rows need that parts of them are given where no tensor tells. On a wide
# ResNet-18 on street video parts of 32 and 64 columns needed none or one more in every layer.
_MORE_BITS = 1
# Multiplications of a layer that are looked at, at most: seconds of one core.
_MOST_MACS = 2**36

# Layer, and how its rows are cut where parts of them share results -> bits.
KnownBits = MutableMapping[tuple[str, ...], int]

_known: weakref.WeakKeyDictionary[WorkloadTrace, KnownBits] = weakref.WeakKeyDictionary()


def most_bits(layer: Layer) -> int:
    """Bits that hold any sum of a layer's int8 products: 1 + ceil(log2(k x 127 x 127 + 1))."""
    grid = layer.quantisation
    largest = _LARGEST if grid is None else 2**grid.bits - 1
    return _bits(layer.gemm.k * largest * _LARGEST)


def bits_of_sums(
    trace: WorkloadTrace,
    decisions: Mapping[str, Decisions | None] | None = None,
    *,
    beyond: int = 0,
    known: KnownBits | None = None,
) -> Mapping[str, int]:
    """Layer -> bits that its partial sums need, found once a trace.

    An upper bound of every partial sum, in whatever order terms are added: the largest sum of
    |a| |w| over rows and columns, plus a sign bit, `1 + ceil(log2(sum + 1))`. Where parts of rows
    share results, a sum takes each part's representative from other rows, so that the bound is a
    column's sum, over the parts, of each part's largest; a mean of parts exceeds none of them.

    Operands are int8: activations a, as the trace has them, are scaled so that the layer's largest
    is 127, weights w so that each column's is; a quantised layer's activations are its own
    integers. All rows are looked at, or of a layer with more than 2^36 multiplications as many,
    evenly spaced. Where a trace has no tensors, as in the trials of a search, and `known` has what
    whole rows need, shared parts are given one bit more: there it is no bound.

    Args:
        trace: with tensors.
        decisions: layer name -> its decisions, of those that do not run dense.
        beyond: layers that need no more than so many bits whatever their data are not looked at,
            and have what they need at most, see `most_bits`.
        known: what was found of the trace before: used, and added to. By default it is kept as
            long as the trace.

    Raises:
        TraceError: the trace lacks the tensors of a layer that is looked at.
    """
    if known is None:
        known = _known.setdefault(trace, {})
    found = {}
    for layer in trace.layers:
        found[layer.name] = most_bits(layer)
        if found[layer.name] > beyond:
            made = (decisions or {}).get(layer.name)
            rows = made.rows if made is not None and isinstance(made.rows, SharedRows) else None
            key = (layer.name, *(() if rows is None else _cut(rows)))
            if key not in known:
                known[key] = _found(trace, layer, rows, known.get((layer.name,)))
            found[layer.name] = min(found[layer.name], known[key])
    return found


def _found(trace: WorkloadTrace, layer: Layer, rows: SharedRows | None, of_rows: int | None) -> int:
    try:
        return _bits(_largest_sum(trace, layer, rows))
    except TraceError:
        if rows is None or of_rows is None:
            raise
        return of_rows + _MORE_BITS


def check_sums(
    trace: WorkloadTrace,
    accelerator: Accelerator,
    decisions: Mapping[str, Decisions | None] | None = None,
    known: KnownBits | None = None,
) -> None:
    """The accumulators of a design for int8 operands must hold every partial sum.

    Args:
        trace: the workload; its data are looked at only where they decide.
        accelerator: the design; of other operands than int8 nothing is known, nor asked.
        decisions: see `bits_of_sums`, as the next.
        known: of the trace.

    Raises:
        ConfigError: a layer needs more bits, or nobody can tell.
    """
    has = accelerator.accumulator_bits
    in_doubt = [layer for layer in trace.layers if most_bits(layer) > has]
    if accelerator.operand_bits != 8 or not in_doubt:
        return
    try:
        needed = bits_of_sums(trace, decisions, beyond=has, known=known)
    except TraceError as error:
        most = max(map(most_bits, in_doubt))
        raise ConfigError(
            f"Accelerator.accumulator_bits must hold the sums of layer {in_doubt[0].name!r}, "
            f"of which no activations tell how large they are ({error}), got {has}; use "
            f"{_width(most)}, which holds any, or a trace with tensors"
        ) from error
    broken = {layer.name: needed[layer.name] for layer in in_doubt if needed[layer.name] > has}
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


def _cut(rows: SharedRows) -> tuple[str, ...]:
    """How rows are cut, in words."""
    order = b"" if rows.column_order is None else np.ascontiguousarray(rows.column_order).tobytes()
    return f"{rows.looks.taps}x{rows.sub_vector_length}", f"{zlib.crc32(order):08x}"


def _bits(largest: float) -> int:
    return 1 + math.ceil(math.log2(largest + 1))


def _width(bits: int) -> int:
    """The least width of accumulators that holds so many bits."""
    return next((width for width in (16, 24, 32) if width >= bits), 48)


def _largest_sum(trace: WorkloadTrace, layer: Layer, shared: SharedRows | None) -> float:
    """Of |a| |w| over rows and columns; of shared rows' parts see `bits_of_sums`."""
    gemm = layer.gemm
    rows = Activations(layer, trace.given(layer.name)).rows
    parts = [slice(None)] if shared is None else _parts(shared)
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
        inputs, steps = inputs.astype(np.float32, copy=False), steps.astype(np.float32, copy=False)
        sums = sum((inputs[:, part] @ steps[part]).max(axis=0, initial=0.0) for part in parts)
        largest = max(largest, float(np.max(sums, initial=0.0)))
    return largest


def _parts(rows: SharedRows) -> list[np.ndarray]:
    """The layer's columns that each sub-matrix of the rows has."""
    looks = rows.looks
    order = np.arange(rows.gemm.k) if rows.column_order is None else rows.column_order
    widths = looks.widths[looks.view_of]
    return [order[first : first + width] for first, width in zip(looks.firsts, widths, strict=True)]
