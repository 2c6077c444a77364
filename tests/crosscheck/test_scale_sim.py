"""Array cycles against SCALE-Sim 3.0.0's recorded results; `data/SOURCES.md` says how they came."""

import csv
from pathlib import Path

import pytest

from accelerators import read_scale_sim_config
from simulator.timing.array import gemm_cycles
from simulator.timing.dense import dense_timing
from simulator.timing.schedule import LIMITS
from workloads import Gemm, read_topology

DATA = Path(__file__).parent / "data" / "scale_sim"
NETWORKS = ("alexnet", "resnet18")
DESIGNS = {
    (f"{side}x{side}", dataflow): DATA / f"a{side}_{dataflow}.cfg"
    for side in (32, 128)
    for dataflow in ("ws", "os", "is")
}


def recorded() -> list[dict[str, str]]:
    with (DATA / "recorded_cycles_3.0.0.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_layer_of_both_networks_is_recorded_on_every_design():
    layers = {
        (network, layer.name)
        for network in NETWORKS
        for layer in read_topology(DATA / f"{network}.csv").layers
    }
    found = [(row["net"], row["layer"], row["array"], row["dataflow"]) for row in recorded()]
    assert len(found) == len(set(found)) == 156
    assert set(found) == {(*layer, *design) for layer in layers for design in DESIGNS}


@pytest.mark.parametrize("network", NETWORKS)
def test_topologies_give_the_recorded_products(network):
    trace = read_topology(DATA / f"{network}.csv")
    rows = [row for row in recorded() if row["net"] == network]
    assert rows
    for row in rows:
        layer = trace.layer(row["layer"])
        m, n, k = (int(row[name]) for name in "MNK")
        assert layer.gemm == Gemm(m=m, n=n, k=k), row["layer"]
        assert layer.gemm.macs == int(row["MACs"])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("design", DESIGNS, ids="_".join)
def test_array_cycles_of_every_layer(network, design):
    array = read_scale_sim_config(DESIGNS[design]).array
    assert f"{array.rows}x{array.columns}" == design[0]
    trace = read_topology(DATA / f"{network}.csv")
    rows = [
        row
        for row in recorded()
        if row["net"] == network and (row["array"], row["dataflow"]) == design
    ]
    assert len(rows) == len(trace.layers)
    for row in rows:
        gemm = trace.layer(row["layer"]).gemm
        occupancy, latency = gemm_cycles(array, gemm.m, gemm.n, gemm.k)
        # SCALE-Sim prints one cycle less for every layer.
        assert occupancy + latency == int(row["scalesim_total_cycles"]) + 1, row["layer"]
        assert int(row["stall_cycles"]) == 0


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("design", DESIGNS, ids="_".join)
def test_ports_of_a_read_design_never_limit_it(network, design):
    # SCALE-Sim has no ports; a tiling adds folds to a layer's recorded cycles, never takes one.
    accelerator = read_scale_sim_config(DESIGNS[design])
    trace = read_topology(DATA / f"{network}.csv")
    for layer in trace.layers:
        timing = dense_timing(layer, accelerator)
        limits = {LIMITS[code] for code in set(timing.schedule.limits.ravel().tolist())}
        assert limits == {"array"}, (layer.name, limits)
        gemm = layer.gemm
        assert timing.busy_cycles["array"] >= sum(
            gemm_cycles(accelerator.array, gemm.m, gemm.n, gemm.k)
        )
