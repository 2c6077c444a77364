"""Plans by weights: the hand examples of UCNN, plans worked off directly, and their hardware."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators import ConfigError, SramBuffer, SystolicArray, WeightTables, preset
from simulator import Decisions, ReuseRun, SumMerge, WeightRepetition, simulate, techniques
from simulator.decisions.rows import KeptRows
from simulator.decisions.weights import COUNTS, WeightPlan
from simulator.running.product import product
from simulator.timing.engines.engine import COMPILED, EVENT
from simulator.timing.pipeline import Run, layer_timing, stages_of
from simulator.timing.remaining import Remaining
from simulator.timing.tiling import tilings
from tests.builders import matrix_layer, roomy_design
from workloads import Gemm, WorkloadTrace

TABLES = roomy_design(
    array=SystolicArray(rows=2, columns=2, dataflow="output_stationary", fold_timing="overlapped"),
    activation_buffer=SramBuffer(capacity_bytes=2**20, width_bits=8, ports=1024),
    weight_buffer=SramBuffer(capacity_bytes=2**20, width_bits=32, ports=64),
    output_buffer=SramBuffer(capacity_bytes=2**20, width_bits=32, ports=64),
    weight_tables=WeightTables(filters=2, sums=8),
)


def of(policy, *filters):
    """(multiplications, additions) of a row."""
    found = policy.counts(np.array(filters, np.float32).T)
    return found["multiplies"], found["sum_adds"] + found["result_adds"]


def planned(layer, weights, policy):
    """Decisions on a layer by its weights."""
    rows = np.zeros((layer.gemm.count, layer.gemm.m, layer.gemm.k), np.float32)
    state = policy.calibrate(layer, rows, lambda: weights)
    made = policy.decide(layer, rows, state)
    assert made is not None
    return made


def test_hand_examples():
    # 2 (a + c) + 3 (b + d); dense 4 and 3.
    assert of(WeightRepetition(), (2, 3, 2, 3)) == (2, 3)
    f, g, other = (2, 2, 3, 3), (5, 5, 7, 7), (5, 7, 5, 7)
    pair = WeightRepetition(filters=2)
    # s1 = a + b and s2 = c + d serve both: 2 s1 + 3 s2, 5 s1 + 7 s2.
    assert of(pair, f, g) == (4, 4)
    assert of(WeightRepetition(), f) == (2, 3)  # each alone: 4 and 6
    # Four tuples of one activation each: nothing is shared. 5 a + 7 b + 5 c + 7 d; a + b, c + d
    # for the first filter, whose groups they are: 6 multiplications, 3 + 2 + 1 additions.
    assert of(pair, f, other) == (6, 6)
    # Sums in whatever order: the second filter's a + c and b + d; nothing is worth keeping.
    assert of(SumMerge(filters=2), f, other) == (4, 6)
    # Zeros are in no group; of larger groups each part is multiplied.
    assert of(WeightRepetition(), (0, 2, 0, 0)) == (1, 0)
    assert of(WeightRepetition(), (0, 0, 0, 0)) == (0, 0)
    assert of(WeightRepetition(largest_sum=2), (2, 2, 2, 2, 2)) == (3, 4)
    # a + b + c of both filters is kept: 2 additions in place of 4, 3 + 2 operands for 6.
    merged = SumMerge(filters=2).counts(np.array([(2, 2, 2, 3), (5, 5, 5, 0)], np.float32).T)
    assert merged["kept_sums"] == 1 and merged["sum_reads"] == 2
    assert merged["sum_adds"] == 2 and merged["multiplies"] == 3 and merged["result_adds"] == 1
    assert merged["inputs"] == 3 + 1 and merged["steps"] == 3 + 2 + 1


def test_eight_bits_bound_what_repeats():
    # k draws of V values hold V (1 - (1 - 1/V)^k) distinct ones: 229 of 256 for a 3x3x64 filter.
    expected = 256 * (1 - (1 - 1 / 256) ** 576)
    assert round(expected) == 229
    rng = np.random.default_rng(0)
    drawn = [of(WeightRepetition(), rng.integers(1, 257, 576))[0] for _ in range(200)]
    spread = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - expected) < 4 * spread
    assert 576 / expected == pytest.approx(2.5, abs=0.02)


class Counting:
    """Integers that count what is done with them."""

    def __init__(self):
        self.multiplies = self.sum_adds = self.result_adds = 0

    def total(self, values, of_results=False):
        values = list(values)
        if of_results:
            self.result_adds += max(0, len(values) - 1)
        else:
            self.sum_adds += max(0, len(values) - 1)
        return sum(values)

    def times(self, weight, value):
        self.multiplies += 1
        return int(weight) * value


def nested(block, row, counting, largest):
    """A block's results by groups within groups, one level after the other."""
    filters = block.shape[1]
    products = [[] for _ in range(filters)]

    def summed(members, level):
        """The sums of groups of a level within those before."""
        if level == filters:
            return counting.total(row[each] for each in members)
        parts = []
        for value in sorted({block[each, level] for each in members}):
            group = [each for each in members if block[each, level] == value]
            size = largest if largest is not None and value else len(group)
            for at in range(0, len(group), size):
                part = summed(group[at : at + size], level + 1)
                if value:
                    products[level].append(counting.times(value, part))
                parts.append(part)
        # What no filter so far multiplies needs no sum of all of it.
        used = level > 0 and any(block[members[0], :level])
        return counting.total(parts) if used else None

    members = sorted(
        (each for each in range(len(block)) if block[each].any()), key=lambda e: tuple(block[e])
    )
    if members:
        summed(members, 0)
    return [counting.total(each, of_results=True) for each in products]


def merged(block, row, counting, graph):
    """A block's results by its graph of sums."""
    values = [int(each) for each in row]
    for parts in graph.parts:
        values.append(counting.total(values[each] for each in parts))
    results = []
    for labels in graph.labels.T:
        products = []
        for weight in np.unique(labels[labels != 0]):
            whole = counting.total(values[each] for each in np.flatnonzero(labels == weight))
            products.append(counting.times(weight, whole))
        results.append(counting.total(products, of_results=True))
    return results


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40), st.sampled_from([1, 2, 4]), st.sampled_from([2, 4, 9, 255]),
    st.sampled_from([None, 1, 2, 5]), st.integers(0, 10**6),
)  # fmt: skip
def test_plans_worked_off_are_dense_bit_for_bit(k, filters, values, largest, seed):
    rng = np.random.default_rng(seed)
    block = rng.integers(-(values // 2), values - values // 2, (k, filters))
    row = rng.integers(-128, 128, k)
    policy = WeightRepetition(filters=filters, largest_sum=largest)
    counting = Counting()
    assert nested(block, row, counting, largest) == (row @ block).tolist()
    told = policy.counts(block.astype(np.float32))
    for name in ("multiplies", "sum_adds", "result_adds"):
        assert told[name] == getattr(counting, name), name
    assert told["inputs"] == np.count_nonzero(block.any(axis=1))
    if filters > 1:
        merging, counting = SumMerge(filters=filters, sums=5), Counting()
        graph = merging.graph(block.astype(np.float32))
        assert merged(block, row, counting, graph) == (row @ block).tolist()
        told = merging.counts(block.astype(np.float32))
        for name in ("multiplies", "sum_adds", "result_adds"):
            assert told[name] == getattr(counting, name), name
        assert told["kept_sums"] == len(graph.parts) <= 5
        assert told["inputs"] + told["sum_reads"] == told["entries"]
        alone = [of(WeightRepetition(), column) for column in block.T]
        # Sharing never adds: as many multiplications as each filter alone, no more additions.
        assert told["multiplies"] == sum(each for each, _ in alone)
        assert told["sum_adds"] + told["result_adds"] <= sum(each for _, each in alone)


def test_one_filter_is_as_fast_as_dense_but_for_zeros():
    layer = matrix_layer("fc", m=64, n=2, k=8)
    weights = np.zeros((1, 8, 2), np.float32)
    weights[0, :, 0] = [1, 2, 3, 4, 5, 6, 7, 8]
    weights[0, :5, 1] = [1, 1, 2, 2, 2]
    plan = planned(layer, weights, WeightRepetition()).weights
    assert plan.cycles.tolist() == [[8, 5]]
    timing = layer_timing(layer, planned(layer, weights, WeightRepetition()), TABLES)
    dense = layer_timing(layer, None, TABLES)
    # A fold lasts as long as its longest table: 8, as dense.
    assert timing.busy_cycles["array"] == dense.busy_cycles["array"] == 32 * 8


def test_tables_by_hand():
    layer = matrix_layer("fc", m=6, n=8, k=4)
    first = [(2, 2, 3, 3), (5, 5, 7, 7)]  # 4 entries, no outer sum: 4 cycles, 4 multiplications
    second = [(2, 2, 3, 3), (5, 7, 5, 7)]  # 4 entries and 2 outer sums; 6 multiplications: 6
    third = [(1, 1, 0, 0), (0, 0, 0, 0)]  # 2 entries, 1 multiplication: 2
    weights = np.array([*first, *second, *third, *third], np.float32).T[None]
    made = planned(layer, weights, WeightRepetition(filters=2))
    assert made.weights.cycles.tolist() == [[4, 6, 2, 2]]
    assert made.macs == 6 * (4 + 6 + 1 + 1)
    left = Remaining.of(layer, made)
    many = tilings(left, TABLES)
    whole = next(t for t in map(many.one, range(len(many.rows))) if (t.rows, t.columns) == (6, 8))
    run = Run(left, TABLES, COMPILED, stages_of(left, TABLES, COMPILED), whole.tiles(left))
    timing = run.timing()
    # Three folds of two rows, on two columns of units: tables of 4 and 6 cycles, then of 2 and 2.
    # A cycle to load, one to store.
    assert timing.busy_cycles["array"] == 3 * (6 + 2)
    assert timing.cycles == 1 + 24 + 1
    # An entry is 2 bits of an activation and 2 of what ends; groups have a weight of 8 bits each:
    # 4 x 4 + (2 + 2) x 8 = 48, 4 x 4 + (2 + 4) x 8 = 64, 2 x 4 + (1 + 1) x 8 = 24 bits, twice.
    assert made.weights.table_bits(8).tolist() == [[48, 64, 24, 24]]
    assert timing.dram_bytes["weights"] == (48 + 64 + 24 + 24) // 8
    actions = timing.actions
    # Words of 32 bits: 2, 2, 1 and 1 for each fold of rows.
    assert actions["weight_buffer", "read_byte"] == 3 * 6 * 4
    assert actions["activation_buffer", "read_byte"] == 6 * (4 + 4 + 2 + 2)
    assert actions["weight_tables", "multiply"] == 6 * 12 == timing.macs
    # Sums: 2; 2 outer ones; 1; 1. What is added to results is priced with its multiplication.
    assert actions["weight_tables", "add"] == 6 * (2 + 2 + 1 + 1)
    assert ("array", "mac") not in actions and ("weight_tables", "read_sum") not in actions
    # 2 x 8 bits an activation; 32 bits twice an operand, thrice a multiplication, once a result.
    steps, outputs = 4 + 6 + 2 + 2, 8
    bits = 6 * (16 * 12 + 32 * (2 * steps + 3 * 12 + outputs))
    assert actions["array", "register_byte"] == bits // 8


def test_units_must_fit_the_plan():
    layer = matrix_layer("fc", m=4, n=8, k=6)
    weights = np.ones((1, 6, 8), np.float32)
    made = planned(layer, weights, SumMerge(filters=4))
    small = replace(TABLES, weight_tables=WeightTables())
    with pytest.raises(ConfigError) as error:
        layer_timing(layer, made, small)
    told = [each.split(", got")[0] for each in error.value.violations]
    assert told == [
        "Accelerator.weight_tables.filters must hold the 4 columns of a block of layer 'fc'",
        "Accelerator.weight_tables.sums must hold the 1 sums that are kept of layer 'fc'",
        "Accelerator.array.columns must be a multiple of the 4 columns of a block of layer 'fc'",
    ]
    for name in ("dense_16x16", "lanes_16x16", "reuse_16x16"):
        with pytest.raises(ConfigError, match=r"multiply before they add; use preset\('merging"):
            layer_timing(layer, made, preset(name))


@pytest.mark.parametrize(
    ("policy", "design"),
    [
        (WeightRepetition(), "tables_16x16"),
        (WeightRepetition(filters=2), "tables_16x16"),
        (WeightRepetition(filters=4), "merging_16x16"),
        (SumMerge(), "merging_16x16"),
    ],
)
def test_plans_run_and_both_engines_agree(policy, design):
    layer, rng = matrix_layer("fc", m=100, n=50, k=60), np.random.default_rng(0)
    weights = rng.integers(-3, 4, (1, 60, 50)).astype(np.float32)
    made = planned(layer, weights, policy)
    one, other = (layer_timing(layer, made, preset(design), e) for e in (COMPILED, EVENT))
    assert one.cycles == other.cycles and one.critical_cycles == other.critical_cycles
    rows = rng.integers(0, 256, (1, 100, 60)).astype(np.float32)
    np.testing.assert_array_equal(product(made, rows, weights), rows @ weights)
    # The counts depend on the weights alone.
    again = policy.decide(layer, rows, policy.calibrate(layer, rows, lambda: weights))
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(again.weights, name), getattr(made.weights, name))


def test_a_plan_follows_rows_that_are_left():
    layer, inner = (matrix_layer("fc", m=m, n=16, k=12) for m in (32, 8))
    weights = np.random.default_rng(0).integers(-2, 3, (1, 12, 16)).astype(np.float32)
    plan = planned(inner, weights, WeightRepetition())
    kept = np.arange(32)[None] % 4 > 0
    rows = KeptRows(gemm=layer.gemm, kept=kept, results=np.zeros((1, 32, 16), np.float32))
    made = Decisions(layer="fc", gemm=layer.gemm, rows=rows, then=plan)
    listed = replace(preset("tables_16x16"), address_list=preset("listed_16x16").address_list)
    timing = layer_timing(layer, made, listed)
    assert timing.macs == plan.macs == made.macs
    assert timing.busy_cycles["array"] < layer_timing(layer, None, listed).busy_cycles["array"]
    with pytest.raises(ConfigError, match="plan by weights alone"):
        Decisions(
            layer="fc", gemm=layer.gemm, rows=rows, weights=replace(plan.weights, gemm=layer.gemm)
        )


def test_float_weights_hardly_repeat_and_are_refused():
    layer = matrix_layer("fc", m=2, n=3, k=300)
    weights = np.random.default_rng(0).standard_normal((1, 300, 3)).astype(np.float32)
    with pytest.raises(ConfigError, match=r"at most 256 values a column, got 300.*few_valued"):
        planned(layer, weights, WeightRepetition())
    with pytest.raises(ConfigError, match="must be given to plan by them"):
        WeightRepetition().calibrate(layer, np.zeros((1, 2, 300), np.float32))
    with pytest.raises(ConfigError, match="calibration of layer 'fc' must hold arrays"):
        WeightRepetition().decide(layer, np.zeros((1, 2, 300), np.float32), {})
    with pytest.raises(ConfigError, match=r"WeightPlan\.adds|WeightPlan\.multiplies"):
        WeightPlan(gemm=layer.gemm, filters=2, **dict.fromkeys(COUNTS, np.zeros((1, 3), int)))


def test_few_values_save_energy_on_tables():
    gemm = Gemm(m=1024, n=64, k=576)
    trace = WorkloadTrace.from_gemms([("conv", gemm)])
    layer, rng = trace.layers[0], np.random.default_rng(0)
    found = {}
    for values in (3, 17, 255):
        weights = rng.integers(-(values // 2), values // 2 + 1, (1, gemm.k, gemm.n))
        made = {"conv": planned(layer, weights.astype(np.float32), WeightRepetition(filters=2))}
        run = ReuseRun(policy={}, images=1, decisions=made, relative_mse={"conv": 0.0})
        found[values] = simulate(trace, preset("tables_16x16"), run).reuse
    ratios = [found[values].layers[0].remaining_ratio for values in found]
    assert ratios == sorted(ratios) and ratios[-1] > 2 * ratios[0]
    energies = [found[values].total_energy_pj for values in found]
    assert energies == sorted(energies)


def test_they_are_registered():
    assert techniques()["ucnn"].policy is WeightRepetition
    assert techniques()["sum_merge"].policy is SumMerge
