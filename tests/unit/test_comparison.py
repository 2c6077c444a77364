"""A workload on boards beside it on accelerators: which rows stand for a board, and the ratios."""

import csv
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from accelerators import (
    Baseline,
    ConfigError,
    baselines,
    preset,
    processor_preset,
    processor_presets,
    write_baselines,
)
from codesign import Comparison, compare
from codesign.boards.rows import ComparedRow, plain_name
from codesign.cli import app as cli
from codesign.report.comparison_page import bars_figure, points_figure
from simulator import LshReuse, NoReuse, PerLayer, decide, predict, simulate
from simulator.boards.error import prediction_errors
from tests.small_search import small_workload
from workloads import Gemm, WorkloadTrace, capture, models
from workloads.traces.scale_sim import read_topology

DESK = {
    "device": "Desk",
    "framework": "PyTorch 2.6",
    "precision": "fp32",
    "model": "small network",
    "latency_ms": 50.0,
    "statistic": "median",
    "source": "me: stop watch",
}
SHAPES = WorkloadTrace.from_gemms([("fc", Gemm(m=64, n=32, k=48))])
REUSE = PerLayer({"first": LshReuse(hashes=6, length=9)}, NoReuse())


def compared_row(**changes):
    values = {
        "device": "Desk",
        "how": "dense",
        "latency_ms": 100.0,
        "latency_origin": "measured",
        "energy_mj": 500.0,
        "energy_origin": "measured",
        "energy_of": "whole board",
        "source": "me",
    }
    return ComparedRow(**(values | changes))


def comparison(*rows):
    return Comparison(
        workload={},
        network="",
        images=1,
        rows=rows,
        simulation=simulate(SHAPES, preset("dense_16x16")),
        notes=(),
    )


@pytest.fixture(scope="module")
def workload():
    return small_workload()


@pytest.fixture
def file(tmp_path):
    """Writes a baseline file of rows that vary one."""

    def write(*changes):
        path = tmp_path / "mine.csv"
        write_baselines(path, [Baseline(**(DESK | change)) for change in changes])
        return path

    return write


def measured(found):
    return [row for row in found.rows if row.latency_origin == "measured"]


def on_desk(workload, path, **options):
    options = {"devices": ["Desk"], "files": [path]} | options
    return compare(workload.trace, preset("dense_16x16"), **options)


def test_ratios_and_products_by_hand():
    board = compared_row()
    unknown = compared_row(how="other", latency_ms=20.0, energy_mj=None, energy_origin="")
    chip = compared_row(
        device="chip", latency_ms=4.0, energy_mj=2.0, latency_origin="simulated",
        energy_origin="simulated",
    )  # fmt: skip
    found = comparison(board, unknown, chip)
    assert board.energy_delay_mj_ms == 100 * 500
    assert board.frames_per_second == 10
    assert found.latency_ratio(board) == 100 / 4
    assert found.energy_ratio(board) == 500 / 2
    assert found.energy_delay_ratio(board) == (100 * 500) / (4 * 2)
    assert found.latency_ratio(unknown) == 5
    assert found.energy_ratio(unknown) is None and found.energy_delay_ratio(unknown) is None
    assert [row["marked"] for row in found.table] == [False, False, True]
    assert found.table[2]["energy_delay_ratio"] == "1.00"
    # the faster measured row stands for the board
    assert found.boards == {"Desk": unknown}
    assert found.verdict == "chip, dense, is 5.00 times as fast as a Desk (measured)."


def test_verdict_tells_what_is_worse():
    chip = compared_row(
        device="chip", latency_ms=400.0, energy_mj=2000.0, latency_origin="simulated"
    )
    assert comparison(compared_row(), chip).verdict == (
        "chip, dense, takes 4.00 times as long as a Desk (measured) and takes 4.00 times the "
        "energy, chip and DRAM against the whole board (measured)."
    )


@pytest.mark.parametrize(
    ("latency_ms", "energy_mj", "told"),
    [
        (99.0, 505.0, "is as fast as a Desk (measured) and takes the same energy"),
        (50.0, 20.0, "is 2.00 times as fast as a Desk (measured) and takes 1/25 of the energy"),
    ],
)
def test_verdict_knows_when_a_difference_is_one(latency_ms, energy_mj, told):
    chip = compared_row(
        device="chip", latency_ms=latency_ms, energy_mj=energy_mj, latency_origin="simulated"
    )
    assert comparison(compared_row(), chip).verdict.startswith(f"chip, dense, {told}, chip and")


def test_predictions_have_their_error_and_no_more_digits_than_that():
    error = prediction_errors()["Pi 4B", "floating point"]  # 8 % in the median, 34 % for most
    board = compared_row(latency_ms=137.3, latency_origin="predicted", error=error)
    assert board.text(board.latency_ms) == "about 140"
    assert board.value(board.latency_ms) == 140.0
    measured_board = compared_row(latency_ms=137.3)
    assert measured_board.text(137.3) == "137" and measured_board.value(137.3) == 137.3
    # 1.25 times: a third of predictions of others was off by more
    near = compared_row(device="chip", latency_ms=110.0, latency_origin="simulated")
    far = compared_row(device="chip", latency_ms=50.0, latency_origin="simulated")
    off = "a Desk (predicted, off by 8 % in the median)"
    assert f"is as fast as {off}" in comparison(board, near).verdict
    assert f"is about 2.7 times as fast as {off}" in comparison(board, far).verdict
    unknown = replace(board, error=None)
    assert unknown.text(137.3) == "about 140"
    assert "(predicted, error not known)" in comparison(unknown, far).verdict


def test_accelerator_rows_are_the_simulation_per_image(workload):
    found = compare(workload.trace, preset("reuse_16x16"), REUSE, model=workload.model)
    report = simulate(workload.trace, preset("reuse_16x16"), REUSE, model=workload.model)
    same, equal, reuse = found.rows[-3:]
    assert found.reference is reuse
    for row, design in zip((same, equal, reuse), report.designs.values(), strict=True):
        seconds = design.cycles / design.accelerator.clock_hz / workload.trace.images
        assert row.latency_ms == pytest.approx(1e3 * seconds)
        joules = design.total_energy_pj * 1e-12 / workload.trace.images
        assert row.energy_mj == pytest.approx(1e3 * joules)
    assert found.latency_ratio(same) == pytest.approx(report.speedup_equal_array)
    assert found.energy_ratio(equal) == pytest.approx(1 / report.energy_ratio_equal_area)
    assert found.simulation.accuracy == report.accuracy is not None


def test_a_network_without_rows_is_predicted_dense_and_under_the_same_decisions(workload):
    run = decide(workload.trace, REUSE)
    found = compare(workload.trace, preset("reuse_16x16"), run, devices=["Pi 5"], threads=2)
    dense, reused = found.rows[:2]
    board = processor_preset("Pi 5")
    expected = predict(workload.trace, board, threads=2)
    assert dense.latency_ms == expected.latency_ms
    assert dense.energy_mj == expected.energy_mj
    assert reused.latency_ms == predict(workload.trace, board, run, threads=2).latency_ms
    assert {dense.latency_origin, reused.energy_origin} == {"predicted"}
    assert any("nothing measured" in note for note in found.notes)


def test_a_dense_design_has_one_row_and_no_reuse_in_software():
    found = compare(SHAPES, preset("dense_16x16"))
    assert [row.latency_origin for row in found.rows] == ["predicted", "simulated"]


def test_the_fastest_row_stands_and_a_batch_is_divided(workload, file):
    path = file(
        {"latency_ms": 90.0, "batch": 3, "energy_mj": 600.0, "energy_origin": "measured"},
        {"latency_ms": 40.0, "energy_mj": 100.0, "energy_origin": "derived"},
        {"latency_ms": 1.0, "layer": "first"},
        {"latency_ms": 1.0, "model": "another"},
        {"latency_ms": 1.0, "precision": "int8"},
        {"latency_ms": 35.0, "reuse": "lsh hashes=10 length=8"},
    )  # fmt: skip
    found = on_desk(workload, path)
    dense, reused = measured(found)
    assert (dense.latency_ms, dense.energy_mj) == (30, 200)
    assert dense.energy_origin == "measured" and "a batch of 3" in dense.note
    assert reused.reuse and "lsh hashes=10 length=8" in reused.note
    (int8,) = measured(on_desk(workload, path, precision="int8"))
    assert int8.latency_ms == 1


def test_the_fastest_row_without_energy_is_joined_by_the_most_frugal(workload, file):
    path = file(
        {"latency_ms": 40.0},
        {"latency_ms": 60.0, "energy_mj": 100.0, "energy_origin": "derived"},
        {"latency_ms": 50.0, "energy_mj": 120.0, "energy_origin": "derived"},
    )
    first, second = measured(on_desk(workload, path))
    assert (first.latency_ms, first.energy_mj, first.energy_origin) == (40, None, "")
    assert (second.latency_ms, second.energy_origin) == (60, "derived, unverified")


def test_energy_without_a_meter_is_the_boards_power_and_marked(workload, file):
    known = {"device": "Pi 4B", "threads": 2, "clock_mhz": 1800}
    (row,) = measured(on_desk(workload, file(known), devices=["Pi 4B"]))
    # 1.6 W idle and 5 W with 4 of 4 cores, half of them busy: 3.3 W for 50 ms
    assert row.energy_mj == pytest.approx(3.3 * 50)
    assert row.energy_origin == "derived, unverified"
    (row,) = measured(on_desk(workload, file(known | {"threads": None}), devices=["Pi 4B"]))
    assert row.energy_mj is None
    path = file(known | {"framework": "ncnn Vulkan GPU"})
    (row,) = measured(on_desk(workload, path, devices=["Pi 4B"]))
    assert row.energy_mj is None  # the preset's power is of its cores
    (row,) = measured(on_desk(workload, file({"power_w": 2.0})))
    assert (row.energy_mj, row.energy_origin) == (100, "derived, unverified")


def test_another_input_size_or_an_unknown_one_is_never_silent(workload, file):
    fits, other = {"input": "12x12x3"}, {"input": "224x224x3", "latency_ms": 1.0}
    found = on_desk(workload, file(fits, other))
    assert [row.latency_ms for row in measured(found)] == [50]
    assert any(
        "small network of 224x224x3, where the workload's images are 12x12x3" in x
        for x in found.notes
    )
    (row,) = measured(on_desk(workload, file({})))
    assert "matched by name alone" in row.note


def test_another_variant_of_a_network_is_not_matched():
    network = capture(models.load("squeezenet1_0"), blank_image(227))
    found = compare(network, preset("dense_16x16"), network="squeezenet")
    assert not measured(found)
    assert any("times the workload's arithmetic, so of another network" in x for x in found.notes)
    network = capture(models.load("squeezenet1_1"), blank_image(227))
    (row,) = measured(compare(network, preset("dense_16x16"), network="squeezenet"))
    assert row.latency_ms == 46.65  # ncnn on a Pi 4B with 4 threads
    assert "this variant does" in row.note


def test_shapes_alone_are_told(tmp_path):
    path = tmp_path / "resnet18.csv"
    path.write_text(
        "Layer,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Strides\n"
        "conv1,32,32,3,3,3,16,1\n"
    )
    found = compare(read_topology(path), preset("dense_16x16"))
    assert not measured(found)
    assert any("resnet18 of 224x224x3, where the workload's images are 32x32x3" in x
               for x in found.notes)  # fmt: skip
    assert any("shapes alone" in note for note in found.notes)


def test_workloads_that_the_model_predicts_badly_are_told(workload):
    def told(network, *shape):
        found = compare(capture(network, torch.ones(shape)), preset("dense_16x16"))
        return any("linear layers of many rows" in note for note in found.notes)

    assert told(torch.nn.Linear(8, 8), 1, 5, 8)
    assert not told(torch.nn.Linear(8, 8), 5, 8)
    assert not told(workload.model, 1, 3, 12, 12)


def blank_image(size):
    return torch.zeros(1, 3, size, size)


def test_overclocked_rows_do_not_stand_for_a_board(workload, file):
    path = file({"device": "Pi 5", "clock_mhz": 2900})
    assert not measured(on_desk(workload, path, devices=["Pi 5"]))


@pytest.mark.parametrize(
    ("called", "hint"),
    [
        ("nets.EfficientNet", "one of efficientnet_b0, efficientnet_v2_b0, efficientnet_lite0"),
        ("nets.SqueezeNet11", "one of squeezenet, say so by --network"),
        ("nets.Xyzzy", ""),
        ("nets.ResNet18", ""),
    ],
)
def test_rows_of_a_like_name_are_hinted_at(called, hint):
    trace = replace(SHAPES, provenance={"model": called})
    found = compare(trace, preset("dense_16x16"), threads=4, precision="fp16")
    note = next(note for note in found.notes if "nothing measured" in note)
    assert (hint in note) if hint else ("--network" not in note)


def test_names_of_networks_match_whatever_their_spelling():
    assert plain_name("MobileNetV2") == plain_name("mobilenet_v2")
    assert plain_name("nets/mine.py:Net_1") == "net1"
    names = {row.model for row in baselines()}
    assert len({plain_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": ["Pi4B"]}, "got 'Pi4B'; use 'Pi 4B'"),
        ({"devices": ["Pi 4B", "toaster"]}, "got 'toaster'; use one of these"),
        ({"devices": []}, "must name a device, got none"),
        ({"devices": ["Pi 3B"]}, "got 'Pi 3B' with neither"),
        ({"network": "resnet19"}, "got 'resnet19'; use 'resnet18'"),
        ({"precision": "fp8"}, "compare.precision must be one of 'fp32', 'fp16', 'int8'"),
        ({"threads": 5}, "predict.threads must be an integer from 1 to 4"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest(changes, message):
    with pytest.raises(ConfigError) as caught:
        compare(SHAPES, preset("dense_16x16"), **changes)
    assert message in str(caught.value)


def test_every_preset_compares_and_plots(workload):
    devices = list(processor_presets())
    found = compare(workload.trace, preset("reuse_16x16"), REUSE, devices=devices, threads=1)
    bars = bars_figure(found.rows)
    assert sum(len(bar.x) for bar in bars.data) == 2 * len(found.rows) - 2  # Zero 2 W: idle unknown
    points = [each for each in points_figure(found).data if each.mode == "markers+text"]
    plotted = [x * y for each in points for x, y in zip(each.x, each.y, strict=True)]
    known = [row.energy_delay_mj_ms for row in found.rows if row.energy_mj is not None]
    assert sorted(plotted) == pytest.approx(sorted(known))


def test_command_prints_and_writes(workload, file, tmp_path):
    trace = workload.trace.save(tmp_path / "trace")
    table, page = tmp_path / "new" / "out.csv", tmp_path / "out.html"
    mine = file({"energy_mj": 100.0, "energy_origin": "measured", "note": "<b>mine</b>"})
    options = ["--device", "Desk", "--device", "Pi 4B", "--baselines", mine, "--csv", table]
    options += ["--layer", "first=6,9", "--html", page]
    arguments = ["compare", trace, *options]
    result = CliRunner().invoke(cli.app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    assert "me: stop watch" in result.stdout
    with table.open(newline="") as read:
        rows = list(csv.DictReader(read))
    assert [row["latency_origin"] for row in rows] == ["measured"] + 2 * ["predicted"] + (
        3 * ["simulated"]
    )
    assert float(rows[0]["energy_delay_mj_ms_per_image"]) == 5000
    assert float(rows[0]["latency_ratio"]) == 50 / float(rows[-1]["latency_ms_per_image"])
    dense, reuse = rows[1:3]
    assert float(dense["prediction_error_median"]) == pytest.approx(0.077, abs=1e-3)
    assert reuse["prediction_error_median"] == "" and "not known" in reuse["note"]
    assert len(dense["latency_ms_per_image"].replace(".", "").strip("0")) <= 2
    text = page.read_text()
    assert "&lt;b&gt;mine" in text and "<b>mine" not in text
    assert "Desk (measured)" in text


def test_command_names_the_nearest_and_broken_files(workload, tmp_path):
    trace = workload.trace.save(tmp_path / "trace")

    def told(*options):
        arguments = ["compare", str(trace), "--accelerator", "dense_16x16", *map(str, options)]
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 2, result.output
        return result.stderr

    assert "use 'Pi 5'" in told("--device", "Pi5")
    assert "use 'mobilenet_v2'" in told("--network", "mobilenet_v22")
    assert "must be a readable text file" in told("--baselines", tmp_path)
    assert "must be a readable text file" in told("--baselines", tmp_path / "none.csv")
    broken = tmp_path / "broken.csv"
    broken.write_text(",".join(DESK) + "\nDesk,PyTorch")
    assert "line 2 must have 7 columns, got fewer" in told("--baselines", broken)
    assert "--weights must come with --model" in told("--weights", broken)
