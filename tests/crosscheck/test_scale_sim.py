"""Array cycles against SCALE-Sim 3.0.0's recorded results; `data/SOURCES.md` says how they came."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from accelerators import read_scale_sim_config
from simulator.timing.dataflows.dataflow import gemm_cycles
from simulator.timing.pipeline import layer_timing
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
        timing = layer_timing(layer, None, accelerator)
        limits = {LIMITS[code] for code in set(timing.schedule.limits.ravel().tolist())}
        assert limits == {"array"}, (layer.name, limits)
        gemm = layer.gemm
        assert timing.busy_cycles["array"] >= sum(
            gemm_cycles(accelerator.array, gemm.m, gemm.n, gemm.k)
        )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("design", DESIGNS, ids="_".join)
def test_filter_traffic_of_every_layer(network, design):
    """Elements of the filter read from the DRAM, one byte each: once, or once for every fold.

    SCALE-Sim's filter buffer is two halves of 32 KiB. With K N elements, and K C in the column tile
    that a fold uses, it reads ceil(M / R) K N where outputs stay (ceil(M / C) K N where inputs do)
    unless a half holds them all, and K N where weights stay. Ours is the same but for two things:

    - A buffer that holds all weights need not be filled anew while it is used, so ours reads K N
      up to 64 KiB, SCALE-Sim only below 32 KiB.
    - Where a half holds a column tile, ours may take columns outermost and read each tile once,
      if that is fastest. SCALE-Sim reads something between once and for every fold.

    It also never lets partial sums of a tile limit the rows of it; so the output buffer is made
    large here.
    """
    read = read_scale_sim_config(DESIGNS[design])
    accelerator = replace(read, output_buffer=replace(read.output_buffer, capacity_bytes=2**21))
    assert accelerator.operand_bits == 8
    capacity = accelerator.weight_buffer.capacity_bytes
    array, dataflow = accelerator.array, accelerator.array.dataflow
    trace = read_topology(DATA / f"{network}.csv")
    for row in recorded():
        if row["net"] != network or (row["array"], row["dataflow"]) != design:
            continue
        layer, theirs = trace.layer(row["layer"]), int(row["filter_dram_reads"])
        gemm = layer.gemm
        ours = layer_timing(layer, None, accelerator).dram_bytes["weights"]
        once = gemm.k * gemm.n
        column_tile = gemm.k * min(gemm.n, array.columns)
        folds = 1 if dataflow == "weight_stationary" else -(-gemm.m // array.rows)
        if folds == 1 or once < capacity // 2:
            assert ours == theirs == once, row
        elif once > capacity and column_tile > capacity // 2:
            assert ours == theirs == folds * once, row
        else:
            assert once <= ours <= theirs <= folds * once, row
            assert once < theirs, row


def test_a_filter_that_does_not_stay_is_read_for_every_fold():
    # AlexNet's Conv3 where outputs stay: M = 121 rows are 4 folds of 32, K N = 2304 x 384.
    layer = read_topology(DATA / "alexnet.csv").layer("Conv3")
    accelerator = read_scale_sim_config(DESIGNS["32x32", "os"])
    weights = layer_timing(layer, None, accelerator).dram_bytes["weights"]
    assert weights == 4 * 2304 * 384 == 3_538_944


@pytest.mark.parametrize(
    ("topology", "cycles"),
    [
        ("L,M,N,K,\nproj,64,32,16,\nout,64,16,32,\n", [688, 688]),
        (
            "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
            "Num Filter, Strides,\n"
            "conv,10,10,3,3,4,8,1,\nconv,8,8,3,3,8,8,1,\nconv,6,6,1,1,8,16,1,\n",
            [430, 522, 116],
        ),
    ],
)
def test_headers_that_it_skips_and_names_that_it_does_not_read(tmp_path, topology, cycles):
    # Its total cycles + 1 on an 8 x 8 array where weights stay.
    array = replace(read_scale_sim_config(DESIGNS["32x32", "ws"]).array, rows=8, columns=8)
    path = tmp_path / "topology.csv"
    path.write_text(topology)
    products = [layer.gemm for layer in read_topology(path).layers]
    found = [gemm_cycles(array, gemm.m, gemm.n, gemm.k) for gemm in products]
    assert [occupancy + latency for occupancy, latency in found] == cycles
