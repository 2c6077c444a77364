"""How a layer under reuse is cut into passes, and what its tiles move through the DRAM."""

from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator
from simulator.decisions.box import Decisions
from simulator.timing.array import ceil_div
from simulator.timing.layer import MOST_TILES, byte_count
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Passes over a group's sub-matrices, P of them; in each, every sub-matrix is a tile.

    Attributes:
        results_first: whether the first pass finds the results of all centroids and the later
            ones only gather them; else every pass does all for its columns.
        multiplied_columns: `(P,)` int64, columns of n that the pass multiplies and, before that,
            hashes for; 0 where it only gathers.
        gathered_rows: `(P,)` int64, rows of a group that the pass rebuilds.
        gathered_columns: `(P,)` int64, columns of them.
    """

    results_first: bool
    multiplied_columns: np.ndarray
    gathered_rows: np.ndarray
    gathered_columns: np.ndarray

    @property
    def hashing(self) -> np.ndarray:
        """`(P,)` int64, 1 where the pass hashes."""
        return (self.multiplied_columns > 0).astype(np.int64)


def plans(decisions: Decisions, accelerator: Accelerator) -> list[Plan]:
    """Plans worth trying.

    By columns: all of n at once; and once, twice, four times ... the array's columns, as long as
    the partial sums of a group fit half of the output buffer: each pass hashes again. Results
    first, only where a group's sums do not fit: then as many rows at once as do, in powers of two.
    Plans of more tiles than can be scheduled are left out; all of n at once is always there.
    """
    n, rows = decisions.gemm.n, rows_per_group(decisions)
    half_bits = accelerator.output_buffer.capacity_bytes * 8 // 2
    columns_fitting = half_bits // (rows * accelerator.accumulator_bits)
    found = [_by_columns(rows, n, n)]
    width = accelerator.array.columns
    while width < n and width <= columns_fitting:
        found.append(_by_columns(rows, n, width))
        width *= 2
    rows_fitting = half_bits // (n * accelerator.accumulator_bits)
    height = 1 << (min(rows, rows_fitting).bit_length() - 1) if rows_fitting else 0
    if columns_fitting < n and height:
        gathered = cut(rows, height)
        nothing = np.zeros(1, np.int64)
        found.append(
            Plan(
                results_first=True,
                multiplied_columns=np.concatenate([[n], np.zeros_like(gathered)]),
                gathered_rows=np.concatenate([nothing, gathered]),
                gathered_columns=np.concatenate([nothing, np.full_like(gathered, n)]),
            )
        )
    passes = MOST_TILES // decisions.shared.clusters.size
    return found[:1] + [plan for plan in found[1:] if len(plan.gathered_rows) <= passes]


def _by_columns(rows: int, n: int, width: int) -> Plan:
    columns = cut(n, width)
    return Plan(
        results_first=False,
        multiplied_columns=columns,
        gathered_rows=np.full_like(columns, rows),
        gathered_columns=columns,
    )


def cut(total: int, size: int) -> np.ndarray:
    """`int64` sizes of the tiles of a dimension, the last one maybe smaller."""
    tiles = np.full(ceil_div(total, size), size, np.int64)
    tiles[-1] = total - size * (len(tiles) - 1)
    return tiles


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """DRAM bytes of every tile, `(count, groups, P, s)` int64 each, or broadcast to it.

    Attributes:
        inputs: activations loaded.
        weights: weights loaded.
        outputs: finished results stored.
        sums_out: partial sums that do not fit the output buffer, stored.
        sums_in: the same, loaded again.
        results_out: centroids, their results and ids that do not fit the centroid buffer, stored.
        results_in: the same, loaded again.
        tables_in: a stream's tables, loaded.
        tables_out: the same, stored.
    """

    inputs: np.ndarray
    weights: np.ndarray
    outputs: np.ndarray
    sums_out: np.ndarray
    sums_in: np.ndarray
    results_out: np.ndarray
    results_in: np.ndarray
    tables_in: np.ndarray | int = 0
    tables_out: np.ndarray | int = 0

    @property
    def loads(self) -> np.ndarray:
        """Bytes in."""
        return self.inputs + self.weights + self.sums_in + self.results_in + self.tables_in

    @property
    def stores(self) -> np.ndarray:
        """Bytes out."""
        return self.outputs + self.sums_out + self.results_out + self.tables_out

    @property
    def total_bytes(self) -> int:
        """Bytes in and out, of all tiles."""
        return int(self.loads.sum() + self.stores.sum())


def traffic(layer: Layer, decisions: Decisions, accelerator: Accelerator, plan: Plan) -> Traffic:
    """DRAM bytes of every tile of a plan."""
    gemm, widths = decisions.gemm, decisions.shared.widths
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    clusters = by_tile(decisions.shared.clusters).astype(np.int64)
    shape = (*clusters.shape[:2], len(plan.multiplied_columns), clusters.shape[3])
    columns = plan.multiplied_columns[:, None]
    hashing = plan.hashing[:, None]
    nothing = np.zeros(shape, np.int64)

    group_bytes = byte_count(
        layer.input_elements // (gemm.count * decisions.shared.groups), operand
    )
    fits = group_bytes <= accelerator.activation_buffer.capacity_bytes // 2
    read = widths if fits else _channels_touched(layer, decisions)
    # Each tile's share of the group's input, by what it reads; rounded so that they add up.
    share = np.diff(np.concatenate([[0], np.cumsum(read)]) * group_bytes // gemm.k)
    inputs = nothing + share * hashing
    if fits:
        inputs[:, :, 1:] = 0

    weights = nothing + byte_count(columns * widths, operand)
    if byte_count(gemm.k * gemm.n, operand) <= accelerator.weight_buffer.capacity_bytes:
        weights[:, 1:] = 0

    outputs = nothing.copy()
    outputs[..., -1] = byte_count(plan.gathered_rows * plan.gathered_columns, operand)

    sums = byte_count(plan.gathered_rows * plan.gathered_columns, accumulator)[:, None]
    excess = np.maximum(0, sums - accelerator.output_buffer.capacity_bytes // 2)
    sums_out, sums_in = nothing + excess, nothing + excess
    sums_in[..., 0] = 0  # the first tile starts from nothing
    sums_out[..., -1] = 0  # the last one's sums leave as outputs

    half = accelerator.reuse_units.centroid_buffer.capacity_bytes // 2
    results = byte_count(clusters * columns, accumulator)
    if not plan.results_first:
        ids = byte_count(rows_per_group(decisions), id_bits(decisions))
        centroids = byte_count(by_tile(decisions.shared.new_clusters) * widths, operand)
        held = centroids + results + ids
        results_out = results_in = nothing + np.maximum(0, held - half)
    else:
        results_out, results_in = _kept_results(decisions, plan, results[:, :, :1], half, nothing)
    return Traffic(
        inputs=inputs,
        weights=weights,
        outputs=outputs,
        sums_out=sums_out,
        sums_in=sums_in,
        results_out=results_out,
        results_in=results_in,
    )


def _kept_results(
    decisions: Decisions, plan: Plan, results: np.ndarray, half: int, nothing: np.ndarray
):
    """Bytes out and in of all results and ids of a group, if they do not fit half the buffer."""
    bits = id_bits(decisions)
    ids = byte_count(rows_per_group(decisions), bits)
    held = results + ids
    travels = held.sum(axis=3, keepdims=True) > half
    results_out, results_in = nothing.copy(), nothing.copy()
    results_out[:, :, :1] = held * travels
    row_ids = byte_count(plan.gathered_rows[1:, None], bits)
    results_in[:, :, 1:] = (results + row_ids) * travels
    return results_out, results_in


def by_tile(values: np.ndarray) -> np.ndarray:
    """`(count, s, groups)` as `(count, groups, 1, s)`."""
    return values.transpose(0, 2, 1)[:, :, None, :]


def rows_per_group(decisions: Decisions) -> int:
    """Rows that are clustered together."""
    return decisions.gemm.m // decisions.shared.groups


def id_bits(decisions: Decisions) -> int:
    """Bits of a cluster's number: a group of r rows has at most r clusters."""
    largest = rows_per_group(decisions)
    if (
        decisions.signatures.cache is None
    ):  # a stream's table may make two clusters of one signature
        largest = min(largest, 2**decisions.signatures.hashes)
    return max(1, (largest - 1).bit_length())


def _channels_touched(layer: Layer, decisions: Decisions) -> np.ndarray:
    """`(s,)` int64, elements of `k` in the input channels that each sub-matrix reads from."""
    shared, convolution = decisions.shared, layer.convolution
    taps = int(np.prod(convolution.kernel)) if layer.kind == "conv" and convolution else 1
    if shared.column_order is not None:  # the channels of one tap lie next to each other
        return np.minimum(shared.widths, decisions.gemm.k // taps) * taps
    starts = np.arange(len(shared.widths), dtype=np.int64) * shared.sub_vector_length
    return (ceil_div(starts + shared.widths, taps) - starts // taps) * taps
