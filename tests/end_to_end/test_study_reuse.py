"""The study of where reuse pays: decisions, arithmetic, and all of it on one small layer."""

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np
import pytest

from accelerators import area_by_part, preset
from simulator import NoReuse, simulate
from tests.small_search import small_workload


@pytest.fixture(scope="module")
def study():
    return import_module("017_where_reuse_pays")


@pytest.fixture(scope="module")
def synthetic():
    return import_module("synthetic")


@pytest.fixture(scope="module")
def layer(synthetic):
    return synthetic.convolution((16, 16), 64, 64)


@pytest.mark.parametrize("technique", ["lsh", "leaders", "neighbours"])
def test_decisions_keep_what_is_asked_for(synthetic, layer, technique):
    setting = synthetic.Setting(technique=technique, tile_rows=64)
    made = synthetic.decisions(layer, setting.policy(layer), 0.25)
    made.check_claims()
    # Four tiles of 64 pixels, 16 clusters each, that nine taps multiply by.
    assert made.shared.clusters.tolist() == [[[16, 16, 16, 16]]]
    assert made.macs == 4 * 16 * 64 * 9 * 64
    assert made.remaining_ratio == 0.25
    # Members follow each other: four to a cluster.
    order, _ = made.shared.looks.orders[0]
    assert np.array_equal(made.shared.ids[0, 0, order], np.tile(np.repeat(np.arange(16), 4), 4))


def test_a_tile_keeps_one_vector_at_least(synthetic, layer):
    policy = synthetic.Setting(technique="lsh", tile_rows=16).policy(layer)
    assert set(synthetic.decisions(layer, policy, 0.01).shared.clusters.ravel()) == {1}


def test_designs_have_the_units_of_their_technique_alone(synthetic, layer):
    design = synthetic.Setting(technique="leaders", array=32, accumulator_bits=16).design([layer])
    assert (design.array.rows, design.accumulator_bits) == (32, 16)
    assert design.leader_table is not None
    assert design.front_end is design.cache is design.neighbour_matcher is None


def test_dense_designs_are_as_large_as_what_they_are_compared_with(synthetic, layer):
    designs = [
        synthetic.Setting(technique="leaders", tile_rows=rows).design([layer])
        for rows in (64, 64, 256)
    ]
    beside = synthetic.as_large((layer,), designs)
    large, small = designs[2], designs[0]
    assert len(beside) == 2
    assert beside[large].cycles == synthetic.dense((layer,), large).cycles
    assert beside[small].cycles == synthetic.dense((layer,), small).cycles
    assert beside[small].area_mm2 <= sum(area_by_part(small).values()) * synthetic.AS_LARGE
    # Of two designs less than 3 % apart, both are compared with what is as large as the larger.
    near = synthetic.Setting(technique="leaders", tile_rows=64, kept=0.45).design([layer])
    assert len({id(each) for each in synthetic.as_large((layer,), [small, near]).values()}) == 1


def test_where_it_breaks_even(study):
    ratios = (0.1, 0.3, 0.7)
    # From 1.5 at 0.3 to 0.5 at 0.7: 1 halfway.
    assert study.break_even(ratios, (2, 1.5, 0.5)) == pytest.approx(0.5)
    assert study.break_even(ratios, (0.9, 0.5, 0.4)) == 0
    assert study.break_even(ratios, (2, 1.5, 1)) == 0.7
    # Where larger ratios pay again, the largest counts.
    assert study.break_even(ratios, (2, 0.5, 1.1)) == 0.7


def test_few_clusters_leave_the_array_idle(study):
    # Tiles of 4x4 of 60x80 pixels keep 8 of 16 vectors; a fold takes as long as loading its rows.
    used = {each.array: each.used for each in study.folded((16,))}
    assert used[32] == pytest.approx(8 / 32)
    assert used[64] == pytest.approx(8 / 64, rel=0.02)


def test_it_is_drawn_and_printed(study, monkeypatch, capsys, tmp_path):
    small = study.Effort(
        ratios=(0.3, 0.7),
        tiles=(16,),
        kept=(0.3,),
        knobs=("as it is",),
        spilling=(),
        folding=(256,),
    )
    monkeypatch.setattr(study, "QUICK", small)
    monkeypatch.setattr(study, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(import_module("paper_tables"), "OUT", tmp_path)
    shape = "VGG 3x3 512->512, 4x4"
    monkeypatch.setattr(sys, "argv", ["017", "--quick", "--shapes", shape])
    study.main()
    printed = capsys.readouterr().out
    assert "r=0.3: speed, energy" in printed and "1/2 of the gathering lanes" in printed
    assert (tmp_path / "017_where_reuse_pays.html").exists()


def test_what_limits_adds_up(study, synthetic, layer):
    setting = synthetic.Setting(technique="neighbours", tile_rows=64)
    report = synthetic.run((layer,), setting, 0.5, setting.design([layer]))
    assert sum(study.shares(report).values()) == pytest.approx(1)


def test_a_network_has_its_best_design(tmp_path):
    networks = import_module("reuse_networks")
    row = networks.network_row(small_workload(), tmp_path, trials=4, base="every_64x64")
    # Dense designs are tried too, and no better one may lose a point.
    assert float(row["points lost"]) <= 1
    assert row["trial"].endswith("of 4")
    # A search that is there is read.
    again = networks.network_row(small_workload(), tmp_path, trials=4, base="every_64x64")
    assert again == row


def test_all_products_are_left_without_reuse():
    networks = import_module("reuse_networks")
    workload = small_workload()
    report = simulate(workload.trace, preset("dense_16x16"), NoReuse())
    assert networks.products_left(report.to_dict()) == 1
