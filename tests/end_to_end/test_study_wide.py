"""The study of a wide network on a street: frames, arithmetic, and all of it on a small network."""

import sys
from dataclasses import replace
from importlib import import_module

import pytest

from accelerators import preset
from codesign import search
from codesign.space.technique_space import TechniqueSpace
from tests.small_search import small_workload


@pytest.fixture(scope="module")
def study():
    return import_module("018_reuse_on_a_wide_network")


@pytest.fixture(scope="module")
def street():
    return import_module("wide_street")


@pytest.fixture(scope="module")
def workload():
    found = small_workload()
    return replace(found, held_out=replace(found.calibration, labels=found.trace.labels))


@pytest.fixture(scope="module")
def found(workload, tmp_path_factory):
    """A search of six trials: the starts, and one more."""
    space = TechniqueSpace.for_techniques(
        workload.trace, preset("every_64x64"), ("dense", "leaders"), grouping="layer"
    )
    return search(
        workload, space, trials=6, storage=tmp_path_factory.mktemp("wide") / "study.journal",
        executor="inline",
    )  # fmt: skip


def test_the_thriftiest_is_no_larger(street):
    designs = [
        {"mm2": 1.0, "energy_pj": 5.0, "cycles": 9},
        {"mm2": 2.0, "energy_pj": 3.0, "cycles": 7},
        {"mm2": 3.0, "energy_pj": 1.0, "cycles": 5},
    ]
    assert street.thriftiest(designs, 2.5)["cycles"] == 7


def test_speeds_are_told_against_the_thriftiest_dense_design_too(study):
    own = {"area_mm2": 1, "cycles": 50, "images": 2, "energy_pj": {"array": 4.0}}
    fastest = {"area_mm2": 1, "cycles": 100, "images": 2, "energy_pj": {"array": 6.0, "dram": 4.0}}
    summary = {"design": "reuse", "designs": {"reuse": own, "dense_equal_area": fastest}}
    # 75 cycles and 4 pJ an image are half as slow again as 100 in two, and take 0.8 of 10 pJ.
    dense = [{"mm2": 1, "cycles": 75, "energy_pj": 4.0}]
    assert study.dense_of(summary, dense) == (1.5, 0.8)


def test_layers_are_called_as_on_the_map(study):
    synthetic = import_module("synthetic")
    layer = synthetic.convolution((60, 80), 128, 128)
    assert study.shape_of(layer) in synthetic.SHAPES
    assert study.shape_of(synthetic.linear(4, 8, 8)) is None
    assert study.shape_of(synthetic.convolution((60, 80), 128, 128, 1)) is None


def test_it_explains_itself_without_drives(study, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["018"])
    with pytest.raises(SystemExit) as stopped:
        study.main()
    assert stopped.value.code == 2
    assert "give --camvid FOLDER" in capsys.readouterr().err


def test_a_search_is_judged_and_drawn(study, street, found, workload):
    space = found.space
    dense = street.dense_designs(workload.trace.layers, preset("every_64x64"), 100)
    rows = study.front_rows(found, space, dense)
    assert rows and all(row["over fastest"] for row in rows)
    chosen = next(each for each in found.trials if each.origin == "start")
    judged = street.Street(workload=workload, others=workload, space=space)
    summary = judged.judged(chosen.parameters, "choose")
    assert summary["accuracy"] == chosen.summary["accuracy"]
    limits = study.limit_rows(summary)
    told = sum(float(row["reuse, M cycles a frame"]) for row in limits)
    own, _ = study.designs_of(summary)
    assert told == pytest.approx(own["cycles"] / own["images"] / 1e6, abs=0.01 * len(limits))
    assert study.judged_row("here", summary, dense)["mIoU"] == f"{100 * summary['accuracy']:.1f}"
    assert study.map_rows(summary, workload.trace.layers) == []  # none of its shapes
    assert study.figure(found, study.shown(found)[0]).data


def test_one_thing_is_changed_at_a_time(street, found, workload):
    start = next(each for each in found.trials if each.origin == "start")
    reports = street.changed(workload, found.space, start.parameters)
    assert next(iter(reports)) == "as it is"
    plain, faster = reports["as it is"], reports["twice the bandwidth of DRAM"]
    assert faster.reuse.cycles < plain.reuse.cycles
    assert faster.accuracy == plain.accuracy
