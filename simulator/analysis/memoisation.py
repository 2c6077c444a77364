"""What remembering products of operands would cost and save: a model of one multiplication."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from accelerators import ConfigError, CostTable, cost_table
from accelerators.rules import named
from simulator.policies.activations import Activations
from simulator.policies.technique import Technique, register
from workloads.traces.trace import WorkloadTrace

FLOAT32_MULTIPLY_PJ = 3.7
"""At 45 nm: M. Horowitz, "Computing's energy problem", ISSCC 2014."""

ENTRIES = (1, 4, 16, 64, 256, 1024, 4096)
"""Pairs that a table holds, of those that are tried."""

# Bits of an operand, of those that memoisation was published for.
_OPERANDS = {"int8": 8, "float32": 32}
_WEIGHT_TOP = 127
_MOST_BITS = 8
_VALUES = 2**_MOST_BITS  # of an activation, and of a weight


@dataclass(frozen=True, kw_only=True)
class RememberedProducts:
    """A table of some pairs of operands with their products, beside a multiplier.

    Attributes:
        entries: pairs that the table holds, those that come most often.
        hit_rate: of all multiplications, those whose pair is in it, 0 to 1.
        lookup_pj: energy of a look-up, which each multiplication begins with.
        multiply_pj: energy of a multiplication.
    """

    entries: int
    hit_rate: float
    lookup_pj: float
    multiply_pj: float

    @property
    def energy_pj(self) -> float:
        """Of a multiplication with the table: E_lookup + (1 - h) E_multiply."""
        return self.lookup_pj + (1 - self.hit_rate) * self.multiply_pj

    @property
    def break_even_pj(self) -> float:
        """Energy of a look-up below which the table pays: h E_multiply."""
        return self.hit_rate * self.multiply_pj

    @property
    def pays(self) -> bool:
        """Whether the table saves energy."""
        return self.lookup_pj < self.break_even_pj


@dataclass(frozen=True, kw_only=True)
class Memoisation:
    """Tables of several sizes for the multiplications of a workload.

    Attributes:
        operands: what is multiplied, `int8` or `float32`.
        pairs: different pairs of operands that there are.
        tables: from the smallest to the largest.
    """

    operands: str
    pairs: int
    tables: tuple[RememberedProducts, ...] = field(default=())

    @property
    def best(self) -> RememberedProducts:
        """The table with which a multiplication takes least."""
        return min(self.tables, key=lambda table: table.energy_pj)

    @property
    def verdict(self) -> str:
        """In a sentence whether any table pays, and what would have to be true."""
        best = self.best
        told = (
            f"of {self.operands}, a multiplication takes {best.multiply_pj:.2f} pJ; with the best "
            f"table, of {best.entries} pairs, {best.energy_pj:.2f} pJ: {best.hit_rate:.1%} of the "
            f"pairs are found, at {best.lookup_pj:.2f} pJ a look-up"
        )
        if best.pays:
            return f"memoisation pays: {told}"
        return f"memoisation can't pay: {told}; one would have to take {best.break_even_pj:.3f} pJ"


def multiply_memoisation(
    trace: WorkloadTrace,
    *,
    operands: str = "int8",
    technology: str = "horowitz_2014_45nm",
    entries: Sequence[int] = ENTRIES,
) -> Memoisation:
    """What tables of products would save of a workload's multiplications.

    Bloom filters, associative memories and look-up tables beside a multiplier (Jiao et al., DATE
    2018; Ma et al., AxR-NN, GLSVLSI 2020; Mocerino et al., 2019; Razlighi et al., LookNN, DATE
    2017) change neither rows nor columns nor cycles, only the energy of one multiplication:
    E = E_lookup + (1 - h) E_multiply. Hits come from the histogram of (activation, weight) pairs of
    the trace's quantised layers, all multiplications of all of them; a table holds the pairs that
    come most often, which no table that learns as it runs can beat. A look-up is the cheaper of
    two: every pair's key compared with the operands at once, or one read of a memory that knows
    where a pair would be; what replaces pairs, and what decides where they are, costs nothing here.

    Args:
        trace: with tensors and quantised layers.
        operands: `int8`, priced by the cost table; or `float32`, whose values are taken to be the
            trace's: as few of them, as with clustered operands.
        technology: a cost table, of arithmetic and memories.
        entries: pairs that tables hold.

    Raises:
        ConfigError: the trace has no quantised layer with weights, or there are no such operands.
        TraceError: the trace holds no tensors.
    """
    bits = named("multiply_memoisation.operands", operands, _OPERANDS)
    table = cost_table(technology)
    counts = np.sort(pair_counts(trace), axis=None)[::-1]
    reached = np.cumsum(counts) / counts.sum()
    float32 = operands == "float32"
    multiply_pj = (
        FLOAT32_MULTIPLY_PJ if float32 else table.energy_pj("int_multiplier", "multiply", bits=bits)
    )
    tables = tuple(
        RememberedProducts(
            entries=each,
            hit_rate=float(reached[min(each, len(reached)) - 1]),
            lookup_pj=lookup_pj(each, bits, table),
            multiply_pj=multiply_pj,
        )
        for each in sorted(entries)
    )
    return Memoisation(operands=operands, pairs=int(np.count_nonzero(counts)), tables=tables)


def lookup_pj(entries: int, bits: int, table: CostTable) -> float:
    """Energy of looking a pair of operands up among others, and of reading its product.

    Args:
        entries: pairs.
        bits: of an operand; a key has two, and so has a product.
        table: prices it.
    """
    product = table.energy_pj("register", "read", bits=2 * bits)
    compared = entries * table.energy_pj("comparator", "compare", bits=2 * bits) + product
    size_bytes = entries * 4 * bits / 8
    read = table.energy_pj("sram", "read", size_bytes=size_bytes, width_bits=4 * bits)
    return min(compared, read + table.energy_pj("comparator", "compare", bits=2 * bits))


def pair_counts(trace: WorkloadTrace) -> np.ndarray:
    """`(256, 256)` int64, how often each int8 activation meets each int8 weight.

    A pair meets as often as, over the elements of the sums, the one is an activation there times
    the other is a weight there.

    Raises:
        ConfigError: no layer is quantised and has weights, or one has activations of more bits.
        TraceError: the trace holds no tensors.
    """
    total, found = np.zeros((_VALUES, _VALUES), np.int64), False
    for layer in trace.layers:
        if layer.quantisation is None or not layer.weights_are_parameters:
            continue
        found = True
        if layer.quantisation.bits > _MOST_BITS:
            raise ConfigError(
                f"multiply_memoisation.trace must have operands of {_MOST_BITS} bits or fewer, got "
                f"{layer.quantisation.bits} in layer {layer.name!r}; quantise it to {_MOST_BITS}"
            )
        rows = Activations(layer, trace.given(layer.name)).rows
        for values, weights in zip(rows, trace.weights(layer.name), strict=True):
            activations = np.rint(values + layer.quantisation.zero_point).astype(np.int64)
            largest = np.abs(weights).max(axis=0)
            steps = np.rint(weights * (_WEIGHT_TOP / np.where(largest > 0, largest, 1)))
            places = steps.astype(np.int64) + _WEIGHT_TOP
            total += _of_elements(activations).T @ _of_elements(places.T)
    if not found:
        raise ConfigError(
            "multiply_memoisation.trace must have a quantised layer with weights, got none; "
            "capture the model in 8 bits (--precision int8)"
        )
    return total


def _of_elements(values: np.ndarray) -> np.ndarray:
    """`(k, 256)` int64, how often each value is in each column of `(rows, k)`."""
    k = values.shape[1]
    places = values + _VALUES * np.arange(k)
    return np.bincount(places.ravel(), minlength=k * _VALUES).reshape(k, _VALUES)


register(
    Technique(
        name="multiply_memoisation",
        title="Memoised multiplications (Bloom filters, AxR-NN, LookNN)",
        axis="weights",
        word="keep",
        grain="multiplication",
        rule="A table beside a multiplier knows the products of frequent pairs of operands: "
        "E = E_lookup + (1 - h) E_multiply. No rows, columns or cycles change.",
        evidence="both operands of each multiplication",
        source="Jiao et al., DATE 2018; Ma et al., AxR-NN, GLSVLSI 2020; Mocerino et al., 2019; "
        "Razlighi et al., LookNN, DATE 2017",
        how="simulator.multiply_memoisation(trace), a model of its energy: it can't pay for int8",
        published=("Bloom filter reuse", "AxR-NN", "LookNN"),
    )
)
