"""Published figures of reuse hardware, met or explained.

Sources: Cicek et al., ACM TODAES 27(5), 2022, and its RTL and model (nmcicek/deepreuse-soc);
Focus, HPCA 2026 (dubcyfor3/Focus).
"""

from dataclasses import replace

import numpy as np
import pytest

from accelerators import area_by_part, cost_table, energy_per_action, preset
from simulator import LshReuse
from simulator.timing.engines.compiled_cache import replay
from simulator.timing.pipeline import layer_timing
from tests.builders import even_decisions, matrix_layer, roomy_design
from workloads import CifarNet, capture, digits


def test_cicek_design_a_hashes_one_vector_a_cycle_with_480_multipliers():
    design = preset("reuse_16x16_int8")
    unit = design.front_end
    assert unit.max_hashes * unit.max_length * unit.lanes == 480
    layer = matrix_layer("fc", m=1000, n=16, k=24)
    decisions = even_decisions(layer, length=24, clusters=50, hashes=20)
    timing = layer_timing(layer, decisions, design)
    assert timing.busy_cycles["front_end"] == 1000


def test_cicek_design_a_clears_a_table_of_every_signature_one_entry_a_cycle():
    # The RTL clears the 2^H valid bits of its table; here a table has as many entries as are built,
    # so the design with 2^H of them is the one that pays 2^H cycles.
    design = preset("reuse_16x16_int8")
    layer = matrix_layer("fc", m=1000, n=16, k=24)
    decisions = even_decisions(layer, length=24, clusters=50, hashes=15)
    full = replace(design, cache=replace(design.cache, entries=2**15))
    cycles = [layer_timing(layer, decisions, each).busy_cycles["cache"] for each in (design, full)]
    assert cycles[1] - cycles[0] == 2**15 - design.cache.entries


@pytest.fixture(scope="module")
def first_sub_vectors():
    """Decisions on 102,400 real vectors: five pixels of each row of CifarNet's conv1, 100 scans."""
    trace = capture(CifarNet(), digits("test").take(100).images)
    rows = np.ascontiguousarray(trace.rows("conv1")[:, :, :5])
    layer = matrix_layer("conv1", m=rows.shape[1], n=64, k=5)
    assert rows.shape[1] == 102_400
    policy = LshReuse(hashes=15, length=5, scope="batch", projection="int8", thresholds="zero")
    return policy.decide(layer, rows, {})


@pytest.mark.parametrize(
    ("banks", "update_cycles", "published"), [(16, 0, 0.57), (4, 3, 3.9), (2, 8, 10.1)]
)
def test_cicek_design_b_cycles_per_vector(first_sub_vectors, banks, update_cycles, published):
    cache = replace(preset("cicek_design_b").cache, banks=banks, update_cycles=update_cycles)
    # 2^15 sets: a signature of 15 bits is its own remainder and set, and its low bits the bank.
    assert cache.entries // cache.ways == 2**first_sub_vectors.signatures.hashes
    # Three sub-vectors of 5 in a fetch of 16 words.
    replayed = replay(
        first_sub_vectors, cache, vectors_per_group=np.array([3]), cycles_per_group=np.array([1])
    )
    cycles_per_vector = replayed.cycles.sum() / 102_400
    # A fetch brings three vectors, and a bank is held for 1 + update_cycles by each of its own.
    assert 1 / 3 <= cycles_per_vector <= 1 + update_cycles
    # Measured here: 0.78, 3.41 and 8.0; on CIFAR-10 images 0.68, 3.19 and 7.4. The published inputs
    # are not recorded, so the same figures can't be expected; similar neighbours collide alike,
    # which is the effect to be met: within 1.4x, the spread between our two data sets being 1.15x.
    # 10.1 is more than the 9 cycles that an access can hold a bank: the published model cuts a
    # vector in two where zeros are skipped and counts both halves, up to 119,899 accesses for its
    # 102,400 vectors, and counts a wait again for every dispatch within it.
    assert published / 1.4 <= cycles_per_vector <= published * 1.4


def test_focus_gather_formula():
    # tokens x ceil(K / 32) x ceil(N / 32) / ports
    design = preset("focus_32x32")
    layer = matrix_layer("fc", m=700, n=80, k=100)
    decisions = even_decisions(layer, length=32, clusters=70)
    for ports in (1, 2):
        gather = replace(design.reconstructor, ports=ports)
        wide = roomy_design(rows=32, columns=32, front_end=design.front_end, reconstructor=gather)
        timing = layer_timing(layer, decisions, wide)
        assert timing.busy_cycles["reconstructor"] == 700 * 4 * 3 / ports


def test_focus_matcher_is_priced_alike():
    """Focus's RTL, 32-wide, FP16, 500 MHz, in mm2 and mW; its node is not stated, nearest is 28 nm.

    Its products are of 11-bit significands: more than int8 and less than int16. Its dot product has
    one adder, used for 32 cycles, where ours has a tree that a comparison a cycle takes.
    """
    cosine, norm, largest, mean = 0.0159, 0.0035, 5.6e-5, 0.0012
    line_buffer, table, ids = 0.0912, 0.1104, 0.0051
    focus, power_mw = cosine + norm + largest + mean + line_buffer + table + ids, 6.2
    base = replace(preset("neighbour_32x32"), technology="hwcomponents_28nm")
    costs = cost_table(base.technology)
    for bits, factor in ((8, 1.1), (16, 2.6)):
        design = replace(base, operand_bits=bits)
        bill = design.neighbour_matcher.bill(design)
        # Half of the dot products are squares; tests are the lane's.
        areas = [item.count * costs.area_mm2(item.component, **item.size) for item in bill[:4]]
        lane = areas[0] / 2 + areas[1] / 2 + areas[2] + areas[3]
        assert cosine < lane < factor * cosine
    # Wholes differ less: Focus's table is larger, ours divides in full.
    assert area_by_part(design)["neighbour_matcher"] == pytest.approx(focus, rel=0.1)
    # Energies of the tables are high; beside a multiplication of the array, which takes 324 mW at
    # 1,024 a cycle in Focus, a comparison takes 19.6 there, and here twice that at most.
    prices = energy_per_action(design)
    comparison = 32 * prices["neighbour_matcher", "correlate"] + prices["neighbour_matcher", "test"]
    assert 1 < comparison / prices["array", "mac"] / (power_mw / (324 / 1024)) < 2


def test_a_lane_of_leaders_is_priced_as_focus_prices_a_cosine():
    """A distance takes no division and one product less than a cosine, but the same dot product."""
    cosine = 0.0159
    base = replace(preset("leader_32x32"), technology="hwcomponents_28nm")
    costs = cost_table(base.technology)
    narrow = replace(base.leader_table, width=32)
    for bits, factor in ((8, 1.0), (16, 2.6)):
        design = replace(base, operand_bits=bits, leader_table=narrow)
        dots, sums, distances, least = narrow.bill(design)[:4]
        # Of the dot products, one is of squares.
        share = narrow.lanes / (narrow.lanes + 1)
        areas = [
            item.count * costs.area_mm2(item.component, **item.size)
            for item in (dots, sums, distances, least)
        ]
        lane = (share * (areas[0] + areas[1]) + areas[2] + areas[3]) / narrow.lanes
        assert 0.7 * cosine < lane < factor * cosine


def test_focus_area_and_power_are_not_met_and_why():
    """Focus adds 2.8 % area and 2.2 % power; this model's units add far more, by what they hold.

    Focus's similarity units are one 32-wide cosine unit (0.0159 mm2) and a table (0.110 mm2), 4 %
    of the 3.119 mm2 of a design with FP16 units and large buffers, and compare with a few earlier
    vectors. Ours hash with adders and keep running sums of every cluster, their tags and results.
    """
    areas = area_by_part(preset("focus_32x32"))
    dense = sum(area_by_part(preset("dense_32x32")).values())
    hashing = areas["front_end"] / dense
    assert 0.02 < hashing < 0.05  # of the order of Focus's 2.8 %: the unit that finds similarity
    keeping = (areas["cache"] + areas["centroid_buffer"] + areas["reconstructor"]) / dense
    assert keeping > 0.1  # the sums and results that Focus does not keep
