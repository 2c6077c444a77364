"""One rule for when a difference is a difference, and words that say no more than the number."""

from dataclasses import replace

import pytest
import torch

from accelerators import preset
from simulator import LshReuse, NoReuse, PerLayer, simulate
from simulator.pages.cards import key_numbers
from simulator.pages.simulation_page import simulation_html
from simulator.results.differences import (
    KEPT,
    LOST,
    UNCLEAR,
    against_one,
    change_text,
    kept,
    loss_interval,
    opening,
    pays,
    points,
    ratio_text,
    significant,
    tone,
)
from simulator.results.lookup import given_design, in_present_names
from simulator.results.stored import summary_problems
from simulator.results.weights import headline_name, weights_line
from tests.older_formats import report_of_format_2
from tests.small_search import SmallNetwork, small_workload
from workloads import capture

REUSE = PerLayer({"first": LshReuse(hashes=6, length=9)}, NoReuse())


@pytest.fixture(scope="module")
def report():
    workload = small_workload()
    return simulate(workload.trace, preset("reuse_16x16"), REUSE, model=workload.model)


def at(report, speedup, energy, **changes):
    """The report with other cycles and energies of the dense design of equal area."""
    layers = tuple(
        replace(
            layer,
            timing=replace(layer.timing, cycles=round(1e6 * speedup)),
            energy_pj={"array": 1e6 / energy},
        )
        for layer in report.reuse.layers
    )
    ours = tuple(
        replace(layer, timing=replace(layer.timing, cycles=10**6), energy_pj={"array": 1e6})
        for layer in report.reuse.layers
    )
    return replace(
        report,
        dense_equal_area=replace(report.dense_equal_area, layers=layers),
        reuse=replace(report.reuse, layers=ours),
        **changes,
    )


@pytest.mark.parametrize(
    ("ratio", "text", "side"),
    [
        (0.999, "1.00", 0),
        (1.0049, "1.00", 0),
        (0.9751, "0.98", 0),
        (0.9749, "0.97", -1),
        (1.0249, "1.02", 0),
        (1.0251, "1.03", 1),
        (0.0042, "0.0042", -1),
        (0.5, "0.50", -1),
        (12.34, "12.3", 1),
        (1234.5, "1,234", 1),
        (float("inf"), "inf", 1),
    ],
)
def test_what_is_printed_alike_is_judged_alike(ratio, text, side):
    assert ratio_text(ratio) == text
    assert against_one(ratio) == side
    assert tone(against_one(ratio)) == {-1: "bad", 0: "", 1: "good"}[side]


@pytest.mark.parametrize(
    ("speedup", "energy", "told"),
    [
        (1.5, 0.5, "Reuse pays"),
        (1.5, 0.999, "Reuse pays in time and breaks even in energy"),
        (1.001, 0.5, "Reuse pays in energy and breaks even in time"),
        (0.99, 1.01, "Reuse breaks even"),
        (1.5, 1.5, "Reuse pays in time but not in energy"),
        (0.5, 0.5, "Reuse pays in energy but not in time"),
        (0.5, 0.999, "Reuse does not pay"),
        (1.001, 1.5, "Reuse does not pay"),
        (0.5, 1.5, "Reuse does not pay"),
    ],
)
def test_what_pays(report, speedup, energy, told):
    assert pays(speedup, energy) == told
    known = at(report, speedup, energy, accuracy=1.0, dense_accuracy=1.0, intervals={})
    assert known.verdict.startswith(f"{told} here: {ratio_text(speedup)}x the speed and ")
    cards = {card["name"]: card["tone"] for card in key_numbers(known.to_dict())}
    assert cards["Speed against dense"] == tone(against_one(speedup))
    assert cards["Energy against dense"] == tone(-against_one(energy))


@pytest.mark.parametrize(
    ("loss", "interval", "state"),
    [
        (None, None, KEPT),
        (1 - 0.98, None, KEPT),
        (0.021, None, LOST),
        (0.0, (-0.3, 0.3), UNCLEAR),
        (0.1, (-0.1, 0.3), UNCLEAR),
        (0.1, (0.03, 0.2), LOST),
        (0.01, (0.0, 0.02), KEPT),
        (0.01, (-0.01, 0.021), UNCLEAR),
    ],
)
def test_accuracy_is_lost_only_if_the_whole_interval_is(loss, interval, state):
    assert kept(loss, interval) == state


def test_few_images_cannot_tell(report):
    # 5 of 6 right dense and under reuse: Newcombe's interval is far wider than 2 points.
    assert report.intervals["change"][0] < -0.02
    told = at(report, 1.5, 0.5, accuracy=5 / 6, dense_accuracy=5 / 6).verdict
    assert told.startswith("Reuse pays here: ")
    assert "whether more than 2 points are lost cannot be told on 6 images" in told
    worse = {"change": (-0.5, 0.1)}
    told = at(report, 1.5, 0.5, accuracy=4 / 6, dense_accuracy=5 / 6, intervals=worse).verdict
    assert told.startswith("Reuse may cost too much accuracy here: ")
    assert "(-16.7 points, 95 % interval -50.0 to +10.0)" in told
    certain = {"change": (-0.5, -0.1)}
    told = at(report, 1.5, 0.5, accuracy=4 / 6, dense_accuracy=5 / 6, intervals=certain).verdict
    assert told.startswith("Reuse costs too much accuracy here: ")
    assert "cannot be told" not in told
    assert opening(1.5, 0.5, 0.5, LOST) == "Reuse costs too much accuracy"


def test_points_have_a_sign_and_never_minus_zero():
    assert [points(each) for each in (0.0, -0.0004, 0.0123, -0.4)] == [
        "+0.0",
        "+0.0",
        "+1.2",
        "-40.0",
    ]
    assert change_text(0.0, None) == "+0.0 points"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(137.3, 2, "140"), (137.3, 1, "100"), (0.01234, 2, "0.012"), (9.96, 2, "10"), (5.2, 1, "5")],
)
def test_numbers_of_few_digits(value, digits, text):
    assert significant(value, digits) == text


def test_a_dense_run_is_told_once_and_not_as_reuse(tmp_path):
    workload = small_workload()
    report = simulate(workload.trace, preset("dense_16x16"), NoReuse(), model=workload.model)
    assert report.design == "dense" and list(report.designs) == ["dense"]
    assert [(row["design"], row["layer"]) for row in report.rows()] == [
        ("dense", "first"), ("dense", "second"), ("dense", "answers"),
    ]  # fmt: skip
    described = report.to_dict()
    assert list(described["designs"]) == ["dense"]
    assert given_design(described) == described["designs"]["dense"]
    page = report.write_html(tmp_path / "page.html").read_text()
    assert "with reuse" not in page and "Speed against dense" not in page


def test_idle_reuse_units_are_not_called_reuse():
    report = simulate(small_workload().trace, preset("reuse_16x16"), NoReuse())
    assert list(report.designs) == ["dense", "dense_equal_area", "reuse_units_idle"]
    assert report.verdict.startswith(
        "Nothing is reused here: reuse_16x16 runs dense, its reuse units idle, at "
    )
    page = simulation_html(report.to_dict())
    assert "with reuse units, idle" in page and '"with reuse  "' not in page


def test_reports_of_before_open(report):
    old = report.to_dict()
    for key in ("design", "units", "intervals"):
        del old[key]
    assert given_design(old) == old["designs"]["reuse"]
    assert "Speed against dense" in simulation_html(old)


@pytest.mark.parametrize("bandwidth", [16, 1])
def test_reports_of_before_show_blocks_by_their_present_names(bandwidth):
    base = preset("reuse_16x16")
    design = replace(base, dram=replace(base.dram, bandwidth_bytes_per_cycle=bandwidth))
    now = simulate(small_workload().trace, design, LshReuse(hashes=6, length=9)).to_dict()
    assert (now["designs"]["reuse"]["bound_by"] == "dram") == (bandwidth == 1)
    old = report_of_format_2(now)
    assert "memory" in old["designs"]["dense"]["busy_cycles"]
    assert in_present_names(old) == now == in_present_names(now)
    assert simulation_html(old) == simulation_html(now)
    assert not summary_problems(old)
    old["designs"]["reuse"]["busy_cycles"] |= {"dram": 1}  # nobody wrote both names
    assert any("designs.reuse.busy_cycles must be" in each for each in summary_problems(old))


def test_rows_say_of_what_they_are(report):
    row, design = report.rows()[0], report.dense
    images, layer = report.reuse.images, design.layers[0]
    assert row["images_per_batch"] == images == 6
    assert row["cycles_per_batch"] == layer.timing.cycles
    assert row["energy_uj_per_image"] == pytest.approx(sum(layer.energy_pj.values()) / 1e6 / images)
    plain = {
        *("design", "layer", "kind", "m", "n", "k", "count", "compute_cycles", "bound_by"),
        *(
            "utilization",
            "remaining_ratio",
            "relative_mse",
            "cost_table",
            "dram_kind",
            "kept_bytes",
        ),
    }
    assert all(name.endswith(("_per_batch", "_per_image")) for name in set(row) - plain)


@pytest.mark.parametrize(
    ("source", "headline", "line"),
    [
        ("random weights, seed 3", "Net (random weights, seed 3)", "random weights, seed 3"),
        (
            "as net.py:Net sets them, seed 0",
            "Net (no weights given: random unless its class loads some)",
            "no weights given: random unless its class loads some",
        ),
        ("net.pth, SHA-256 12ab", "Net", None),
        (None, "Net", "weights as given"),
    ],
)
def test_headlines_tell_of_random_weights(source, headline, line):
    provenance = {"model": "here.Net", "weights": source}
    assert headline_name(provenance) == headline
    assert weights_line(provenance) == line


def test_shapes_alone_have_no_weights_to_tell_of():
    assert weights_line({"model": "resnet"}) is None


def test_verdict_and_page_tell_of_weights_that_may_be_random():
    from workloads.models.weights import note_weights

    torch.manual_seed(0)
    model = SmallNetwork().eval()
    note_weights(model, "as net.py:SmallNetwork sets them, seed 0")
    trace = capture(model, torch.randn(2, 3, 12, 12))
    report = simulate(trace, preset("reuse_16x16"), REUSE)
    assert " here, with weights that are random unless the class loads some: " in report.verdict
    title = "SmallNetwork (no weights given: random unless its class loads some) on reuse_16x16"
    assert f"<h1>{title}</h1>" in simulation_html(report.to_dict())


def test_a_score_of_ones_own_has_no_interval_of_answers_that_agree():
    told = {"agreement": (0.5, 0.9)}
    assert loss_interval("pixel_agreement", told) == pytest.approx((0.1, 0.5))
    assert loss_interval("score", told) is None
    assert loss_interval("output_fidelity", told) is None
