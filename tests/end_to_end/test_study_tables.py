"""The studies of Deep Reuse's tables: formulas by hand, and what runs on tiny input."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from codesign import Workload
from simulator import LshReuse, PerforationReuse
from workloads import capture

STUDIES = Path(__file__).parents[2] / "studies"


def study(name):
    """A study as a module; its siblings can be imported as when it is run."""
    spec = importlib.util.spec_from_file_location(f"study_{name[:3]}", STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(STUDIES))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(STUDIES))
    return module


@pytest.fixture(scope="module")
def table_2():
    return study("002_deep_reuse_table_2")


@pytest.fixture(scope="module")
def table_3():
    return study("003_deep_reuse_table_3")


@pytest.fixture(scope="module")
def table_4():
    return study("004_deep_reuse_table_4")


@pytest.fixture(scope="module")
def table_5():
    return study("005_deep_reuse_table_5")


@pytest.fixture(scope="module")
def tables(table_2):
    return sys.modules["paper_tables"]


class TwoConvolutions(nn.Module):
    """With CifarNet's names and kernels, and few channels."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.fc3 = nn.Linear(64, 4)

    def forward(self, images):
        x = torch.relu(self.conv2(torch.relu(self.conv1(images))))
        return self.fc3(x.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def workload():
    torch.manual_seed(0)
    model = TwoConvolutions().eval()
    smooth = torch.randn(30, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    images = nn.functional.interpolate(smooth, size=8, mode="bilinear")
    return Workload(
        trace=capture(model, images[:20], labels=np.arange(20) % 4),
        model=model,
        calibration=capture(model, images[20:]),
        name="two convolutions",
    )


def test_published_tables_are_whole(tables):
    assert [len(tables.table_2(name)) for name in ("cifarnet", "alexnet", "vgg19")] == [2, 5, 16]
    assert tables.table_2("vgg19")[9].k == 4608  # 512 x 3 x 3; the report prints 4068
    assert tables.published_value("III", "vgg19", "lsh_no_cluster_reuse", "speedup") == 1.89


def test_operations_left_are_the_papers_two_formulas(tables):
    # M / (H + r_c M + M / L) = 64 / (10 + 0.01 x 64 + 6.4) = 64 / 17.04
    paper = tables.table_2("cifarnet")[1]
    assert 1 / paper.remaining == pytest.approx(64 / 17.04)
    assert 1 / paper.remaining == pytest.approx(1 / (10 / 64 + 0.01 + 1 / 10))


def test_weighted_savings_by_hand(tables):
    # 30 + 10 operations; 15 + 2 are left.
    assert tables.weighted_savings([(30, 0.5), (10, 0.2)]) == pytest.approx(40 / 17)


def test_table_4_comes_out_of_table_2(table_4):
    """AlexNet's 3.3 and VGG-19's 4.5: of all readings only this one gives both."""
    wanted = {"alexnet": 3.3, "vgg19": 4.5}
    giving_both = [
        (reading, kind)
        for reading in table_4.READINGS
        for kind in (0, 1)
        if all(
            round(table_4.paper_savings(network, reading)[kind], 1) == value
            for network, value in wanted.items()
        )
    ]
    assert giving_both == [("H/M + r_c + 1/L", 0)]


def test_vgg19_has_its_true_macs(table_4, tables):
    macs = [
        positions * layer.k * layer.m
        for positions, layer in zip(tables.POSITIONS["vgg19"], tables.table_2("vgg19"), strict=True)
    ]
    # 19.6 G multiply-accumulates less 0.12 G of the linear layers.
    assert sum(macs) == 19_508_428_800


def test_clusterings_count_what_a_decision_counts(table_2, tables, workload):
    rows = table_2.clusterings(workload)
    assert len(rows) == 2 * 2 * len(tables.HASHINGS)
    how = tables.AS_PAPER | tables.HASHINGS["centred"]
    policy = LshReuse(hashes=10, length=10, scope="batch", **how)
    run = tables.decided(workload, {"conv2": policy})
    row = next(
        row
        for row in rows
        if (row["layer"], row["scope"], row["hashing"]) == ("conv2", "batch", "centred")
    )
    r_c = run.decisions["conv2"].rows.clusters.sum() / run.decisions["conv2"].rows.ids.size
    assert row["r_c"] == f"{r_c:.4f}"
    assert row["savings"] == f"{1 / (10 / 64 + r_c + 0.1):.2f}"
    # Lengths kept: the same clusters, and a smaller error.
    kept = next(
        row
        for row in rows
        if (row["layer"], row["scope"], row["hashing"])
        == ("conv2", "batch", "centred, lengths kept")
    )
    assert kept["r_c"] == row["r_c"]
    assert float(kept["layer's error"]) < float(row["layer's error"])


def test_a_stream_finds_more_and_more(table_2, workload):
    for row in table_2.cluster_reuse(workload):
        assert 0.5 < float(row["reuse rate"]) <= 1


def test_perforation_is_asked_for_equal_savings(table_4, tables, workload):
    settings = {"one": {"conv2": LshReuse(hashes=10, length=10, scope="batch")}}
    for row in table_4.against_perforation(workload, settings):
        # One of 64 positions more or less; a grid takes whole rows and columns of them.
        savings = float(row["savings"])
        assert abs(1 / float(row["uniform mask: savings"]) - 1 / savings) < 1 / 64
        assert float(row["grid mask: savings"]) == pytest.approx(savings, rel=0.3)
    whole = tables.decided(workload, {"conv2": PerforationReuse(computed=1.0)})
    assert table_4._perforated_savings([workload.trace.layer("conv2")], whole) == 1


def test_whole_networks_count_dense_layers(table_3, tables, workload):
    policies = tables.paper_policies("cifarnet", ("conv1", "conv2"), scope="batch")
    run = tables.decided(workload, {"conv2": policies["conv2"]})
    layers = {layer.name: layer.gemm.macs for layer in workload.trace.layers}
    left = 10 / 64 + run.decisions["conv2"].remaining_ratio + 0.1
    reused = tables.run_savings(workload.trace.layers, run, policies)
    whole = tables.run_savings(workload.trace.layers, run, policies, whole_network=True)
    assert reused == pytest.approx(1 / left)
    total = sum(layers.values())
    assert whole == pytest.approx(total / (total - layers["conv2"] * (1 - left)))


def test_no_network_of_the_paper_runs_as_fast_as_its_operations_promise(table_3):
    for row in table_3.out_of_the_paper():
        assert row["Table III"] < float(row["and linear layers"])
        assert float(row["and linear layers"]) <= float(row["operations, convolutions"])


def test_zeros_that_cost_nothing_leave_less_to_save(table_5):
    policy = LshReuse(hashes=10, length=10)
    assert table_5.savings(policy, 64, 0.01) == pytest.approx(64 / 17.04)
    # Half of the weights kept: 0.5 against 10/64 + 1/10 + 0.01 x 0.5.
    half = table_5.savings(policy, 64, 0.01, kept=0.5)
    assert half == pytest.approx(0.5 / (10 / 64 + 0.1 + 0.005))


def test_compressed_layers_are_integers_with_zeros(table_5, workload):
    zeros = {"conv1": 0.25, "conv2": 0.5}
    pair = table_5.compressed(workload, zeros)
    assert pair.pruned.trace.layer("conv2").quantisation is not None
    weights = pair.pruned.trace.weights("conv2")
    assert (weights == 0).mean() == pytest.approx(0.5, abs=0.05)
    rows = table_5.layers_alone(pair, "cifarnet", ["conv1", "conv2"], "batch")
    for row in rows:
        assert float(row["if zeros cost nothing"]) < float(row["compressed "])
