import pickle
import traceback
from contextlib import ExitStack
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

import codesign.evaluation.evaluator
from accelerators import ConfigError, preset
from codesign import Constraints, DesignSpace, load_study, load_workload, search
from codesign.evaluation.evaluator import Evaluator
from codesign.report.study_report import StudyReport
from codesign.space.lookup import captured_model
from simulator import decide, simulate
from tests.full_disk import contents, largest_file
from tests.small_search import (
    IMAGES,
    TRIALS,
    SmallNetwork,
    small_search,
    small_space,
    small_workload,
    table,
)
from workloads import Gemm, TraceError, WorkloadTrace
from workloads.models import ModelError
from workloads.writing import write_atomically


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted search."""
    return small_search(tmp_path_factory.mktemp("whole"))


def without(parameters, **changes):
    return {**parameters, **changes}


def test_trials_are_stored_as_they_were(whole, tmp_path):
    result = small_search(tmp_path)
    assert [trial.state for trial in result.trials] == ["complete"] * TRIALS
    assert [trial.origin for trial in result.trials] == ["start"] + ["sampler"] * (TRIALS - 1)
    read = load_study(tmp_path)
    assert read == result
    assert table(result) == table(whole)
    assert read.front == result.front and read.hypervolume == result.hypervolume


def test_another_seed_asks_for_other_designs(whole, tmp_path):
    other = small_search(tmp_path, seed=1, trials=4)
    assert other.trials[0].parameters == whole.trials[0].parameters  # the start setting
    assert other.trials[1].parameters != whole.trials[1].parameters


def test_values_are_those_of_the_simulator(whole):
    workload = small_workload()
    for trial in whole.trials[:3]:
        accelerator, policy = whole.design_of(trial)
        run = decide(workload.trace, policy, model=workload.model, calibration=workload.calibration)
        report = simulate(workload.trace, accelerator, run)
        assert trial.values == {
            "speedup": report.speedup_equal_area,
            "energy_uj_per_image": report.reuse.energy_uj_per_image,
            "accuracy": run.accuracy,
        }
        assert trial.summary["verdict"] == report.verdict
        assert trial.summary["designs"]["reuse"]["cycles"] == report.reuse.cycles


def test_baseline_is_the_dense_design_of_the_base_designs_area(whole):
    report = simulate(small_workload().trace, preset("reuse_16x16"))
    assert whole.baseline == {
        "speedup": 1.0,
        "energy_uj_per_image": report.dense_equal_area.energy_uj_per_image,
        "accuracy": 5 / 6,  # one of the six labels is wrong on purpose
    }
    assert whole.quality == "accuracy"


def test_hypervolume_never_shrinks(whole):
    assert len(whole.hypervolume) == TRIALS
    assert (np.diff(whole.hypervolume) >= 0).all()
    first = whole.trials[0].values
    energy = first["energy_uj_per_image"] / whole.baseline["energy_uj_per_image"]
    # One point's box: from speedup 0, twice the baseline's energy and accuracy 0.
    expected = first["speedup"] * max(0.0, 2 - energy) * first["accuracy"]
    assert whole.hypervolume[0] == pytest.approx(expected)


def test_best_loses_no_more_accuracy_than_allowed(whole):
    best = whole.best(accuracy_drop=1.0)
    assert best in whole.front and best == whole.best(accuracy_drop=None)
    ratios = {
        t.number: t.summary["energy_ratio_equal_area"] / t.summary["speedup_equal_area"]
        for t in whole.front
    }
    assert ratios[best.number] == min(ratios.values())
    assert whole.best(accuracy_drop=-1.0) is None  # nothing is better than right


def test_a_space_of_one_design_is_evaluated_once(tmp_path, monkeypatch):
    calls = []
    measure = Evaluator._measure
    monkeypatch.setattr(Evaluator, "_measure", lambda *a: calls.append(1) or measure(*a))
    workload = small_workload()
    space = small_space(workload)
    only = space.start["start"]
    space = replace(
        space, parameters=tuple(replace(p, choices=(only[p.name],)) for p in space.parameters)
    )
    result = search(workload, space, trials=5, batch=1, storage=tmp_path, executor="inline")
    assert len(calls) == 1
    assert [trial.repeat_of for trial in result.trials] == [None, 0, 0, 0, 0]
    assert len(result.front) == 1


def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(whole, tmp_path):
    def interrupt(trial, finished, trials):
        if finished == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_search(tmp_path, on_progress=interrupt)
    states = [trial.state for trial in load_study(tmp_path).trials]
    assert states == ["complete"] * 6
    told = []
    result = small_search(
        tmp_path, resume=True, on_progress=lambda trial, done, total: told.append((done, total))
    )
    assert table(result) == table(whole)
    assert told == [(done, TRIALS) for done in range(7, TRIALS + 1)]


def test_a_study_can_be_extended(whole, tmp_path):
    small_search(tmp_path, trials=9)
    assert table(small_search(tmp_path, resume=True)) == table(whole)
    assert table(small_search(tmp_path, resume=True, trials=5)) == table(whole)  # nothing to do


def test_infeasible_and_failed_trials_say_why(tmp_path, monkeypatch):
    workload = small_workload()
    space = small_space(workload)
    start = space.start["start"]
    choices = {"cache.entries": (1000, 1024), "cache.ways": (16,), "second.hashes": (9, 10)}
    space = replace(
        space,
        parameters=tuple(
            replace(p, choices=choices.get(p.name, p.choices)) for p in space.parameters
        ),
        start={"start": {**start, "cache.ways": 16}},
    )

    def sometimes(trace, policy, **settings):
        if policy.policies["second"].hashes == 9:
            raise RuntimeError("no nines")
        return decide(trace, policy, **settings)

    monkeypatch.setattr(codesign.evaluation.evaluator, "decide", sometimes)
    result = search(workload, space, trials=14, storage=tmp_path, executor="inline")
    assert {trial.state for trial in result.trials} == {"complete", "infeasible", "failed"}
    for trial in result.trials:
        entries, hashes = trial.parameters["cache.entries"], trial.parameters["second.hashes"]
        if entries == 1000:
            assert trial.state == "infeasible"
            assert "Accelerator.cache.ways must divide entries=1000, got 16" in trial.reason
        elif hashes == 9:
            assert trial.state == "failed"
            assert trial.reason.startswith("Traceback") and "no nines" in trial.reason
        else:
            assert trial.state == "complete" and trial.reason is None
        assert (trial.values is None) == (trial.state != "complete")
    assert all(trial.state == "complete" for trial in result.front)
    assert load_study(tmp_path) == result


def test_constraints_are_what_they_say(whole):
    trial = whole.trials[0]
    design = trial.summary["designs"]["reuse"]
    limits = Constraints(
        area_mm2=design["area_mm2"] - 1, power_mw=1e9, latency_ms_per_image=1e9, accuracy_loss=0.0
    )
    excess = limits.excess(trial.values, trial.summary, whole.baseline)
    assert excess["area_mm2"] == pytest.approx(1)
    # Energy of a second, over the time of an image in ms: uJ / ms = mW.
    images_per_second = 1000 / design["latency_ms_per_image"]
    power_mw = design["energy_uj_per_image"] * 1e-6 * images_per_second * 1e3
    assert excess["power_mw"] == pytest.approx(power_mw - 1e9)
    assert excess["latency_ms_per_image"] == pytest.approx(design["latency_ms_per_image"] - 1e9)
    assert excess["accuracy_loss"] == whole.baseline["accuracy"] - trial.values["accuracy"]
    told = limits.reason({"area_mm2": 0.5, "power_mw": -1, "accuracy_loss": 0.25})
    assert told == (
        f"Constraints.area_mm2 must be at most {limits.area_mm2:g}, got "
        f"{limits.area_mm2 + 0.5:.6g}; Constraints.accuracy_loss must be at most 0, got 0.25"
    )
    assert limits.reason({"area_mm2": 0.0, "power_mw": -1.0}) is None  # a limit may be reached


def test_values_that_are_not_finite_fail():
    workload = small_workload()
    evaluator = Evaluator.of(workload, small_space(workload))
    *others, accuracy = evaluator.objectives
    unknown = replace(accuracy, read=lambda _: float("nan"))
    evaluator = replace(evaluator, objectives=(*others, unknown))
    outcome = evaluator(evaluator.space.start["start"])
    assert outcome.state == "failed" and "objectives must be finite" in outcome.reason


@pytest.mark.parametrize(("labels", "quality"), [(True, "accuracy"), (False, "agreement")])
def test_accuracy_is_of_labels_or_of_the_dense_model(labels, quality):
    workload = small_workload(labels=labels)
    evaluator = Evaluator.of(workload, small_space(workload))
    outcome = evaluator(evaluator.space.start["start"])
    assert evaluator.quality == quality
    assert outcome.values["accuracy"] == outcome.summary[quality]


def test_without_a_model_accuracy_is_fidelity():
    workload = replace(small_workload(), model=None)
    evaluator = Evaluator.of(workload, small_space(workload))
    outcome = evaluator(evaluator.space.start["start"])
    layers = outcome.summary["designs"]["reuse"]["layers"]
    errors = [x["relative_mse"] for x in layers if x["relative_mse"] is not None]
    assert evaluator.quality == "fidelity" and len(errors) == 2
    assert outcome.values["accuracy"] == pytest.approx(1 - sum(errors) / 2)


@pytest.mark.parametrize("with_model", [True, False])
def test_evaluator_travels_without_its_files(with_model):
    import pickle

    workload = small_workload()
    if not with_model:
        workload = replace(workload, model=None)
    evaluator = Evaluator.of(workload, small_space(workload))
    directory = workload.trace.files.directory
    sent = pickle.dumps(evaluator)
    here = evaluator(evaluator.space.start["start"])
    del workload, evaluator
    assert not directory.exists()
    there = pickle.loads(sent)
    assert there(there.space.start["start"]).values == here.values


def test_space_of_another_network_is_refused(tmp_path):
    workload = small_workload()
    other = WorkloadTrace.from_gemms(
        [("first", Gemm(m=64, n=8, k=27)), ("third", Gemm(m=64, n=8, k=27))]
    )
    space = DesignSpace.for_workload(other, preset("reuse_16x16"))
    with pytest.raises(ConfigError, match="layers of the workload, got third"):
        search(workload, space, storage=tmp_path)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:port"])
def test_an_address_without_a_cluster_is_refused_at_once(tmp_path, monkeypatch, address):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=f"HOST:PORT of a running Ray cluster, got '{address}'"):
        small_search(tmp_path, executor="ray", ray_address=address)


def test_wrong_arguments_are_reported_together(tmp_path):
    workload = small_workload()
    with pytest.raises(ConfigError) as caught:
        search(
            workload, small_space(workload), storage=tmp_path, trials=0, workers=True, seed=-1,
            batch=2.5, executor="threads",
        )  # fmt: skip
    text = "".join(traceback.format_exception_only(caught.value))
    for name in ("trials", "workers", "seed", "batch", "executor"):
        assert f"search {name} must be" in text


def test_workload_combinations_are_checked_before_anything_is_read():
    with pytest.raises(ConfigError, match=r"weights must be given.*--dataset cifar10.*some\.zip"):
        load_workload(model="cifarnet", inputs="cifar10:some.zip", images=10)
    with pytest.raises(ConfigError, match="224x224 images"):
        load_workload(model="efficientnet_lite0", inputs="digits", images=10)
    with pytest.raises(ConfigError, match="images must be an integer of at least 1, got 0"):
        load_workload(model="cifarnet", inputs="digits", images=0)
    with pytest.raises(ConfigError, match=r"every must be an integer of at least 1, got 0"):
        load_workload(model="cifarnet", inputs="bikes", images=1, every=0)
    with pytest.raises(ConfigError, match=r"first_frame and every must be 0 and 1 .* got 5 and 1"):
        load_workload(model="cifarnet", inputs="digits", images=1, first_frame=5)


def test_for_workload_is_the_default_space_of_a_real_capture():
    workload = small_workload()
    space = DesignSpace.for_workload(workload.trace, preset("reuse_16x16"))
    assert space.layers == ("first", "second")
    result = Evaluator.of(workload, space)(space.start["start"])
    assert result.state == "complete"


@pytest.fixture
def users_file(tmp_path):
    """A model of a user's that draws its weights."""
    path = tmp_path / "net.py"
    path.write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(3, 4, 3)\n"
        "        self.head = torch.nn.Linear(4, 10)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.conv(x).mean((2, 3)))\n"
        "class Narrow(Net):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x[:, :1])\n"
    )
    return path


def test_a_users_model_is_the_same_in_every_run(users_file):
    settings = {"model": f"{users_file}:Net", "inputs": "digits", "images": 3}
    first, again, other = (load_workload(**settings, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.trace.outputs, again.trace.outputs)
    assert (first.trace.outputs != other.trace.outputs).any()
    for workload in (first, other):
        captured_model(settings["model"], None, workload.trace)  # raises where it differs


def test_a_users_model_that_cannot_run_says_what_pytorch_said(users_file):
    with pytest.raises(ModelError, match=r"Narrow' must run .*RuntimeError: .* 3 channels, but"):
        load_workload(model=f"{users_file}:Narrow", inputs="digits", images=3)
    trace = load_workload(model=f"{users_file}:Net", inputs="digits", images=3).trace
    with pytest.raises(ConfigError, match=r"Narrow' is not: model must answer .* once more"):
        captured_model(f"{users_file}:Narrow", None, trace)


class Counted(SmallNetwork):
    """Tells how many images each run has, of all copies."""

    images: ClassVar[list[int]] = []

    def forward(self, images):
        self.images.append(len(images))
        return super().forward(images)


@pytest.mark.parametrize("under_reuse", [False, True])
def test_copies_of_a_model_are_run_densely_once_a_process(under_reuse):
    torch.manual_seed(3 + under_reuse)  # other weights, of which this process has no copy
    workload = replace(small_workload(Counted().eval()), calibrate_under_reuse=under_reuse)
    space = small_space(workload)
    sent = pickle.dumps(Evaluator.of(workload, space))  # as Ray sends it with every trial
    runs = []
    for hashes in (4, 5, 6):
        Counted.images.clear()
        trial = without(space.start["start"], **{"first.reuse": True, "first.hashes": hashes})
        assert pickle.loads(sent)(trial).state == "complete"
        runs.append(Counted.images.copy())
    learned = [IMAGES] * under_reuse
    dense = [1] * (1 + under_reuse)  # the first image of what is judged, and of the calibration
    assert runs == [[*dense, *learned, IMAGES], [*learned, IMAGES], [*learned, IMAGES]]


def test_a_model_that_fails_after_it_was_captured_says_what_pytorch_said():
    workload = small_workload()
    space = small_space(workload)
    workload.model.answers.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(TraceError, match=r"once more, got ZeroDivisionError: .*; check its code"):
        Evaluator.of(workload, space)


def test_a_users_model_of_several_outputs_in_16_bits(users_file):
    text = users_file.read_text()
    users_file.write_text(
        f"{text}"
        "class Heads(Net):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.bfloat16()\n"
        "    def forward(self, x):\n"
        "        y = super().forward(x)\n"
        "        return {'boxes': y[:, :4], 'last': y}\n"
        "def small(outputs, labels):\n"
        "    return 1 / (1 + abs(outputs).mean())\n"
    )
    settings = {"model": f"{users_file}:Heads", "inputs": "digits", "images": 3}
    settings |= {"calibration_images": 0}
    usual = load_workload(**settings)  # ten classes fit the labels, four boxes do not
    assert usual.trace.provenance["precision"] == "bfloat16"
    assert usual.trace.outputs.shape == (3, 10)
    space = DesignSpace.for_workload(usual.trace, preset("reuse_16x16"))
    assert Evaluator.of(usual, space).quality == "accuracy"
    boxes = load_workload(**settings, output="boxes", score=f"{users_file}:small")
    evaluator = Evaluator.of(boxes, space)
    assert evaluator.quality == "score" and evaluator(space.start["start"]).state == "complete"
    expected = 1 / (1 + np.abs(boxes.trace.outputs).mean())
    assert evaluator.baseline["accuracy"] == pytest.approx(expected)
    none = load_workload(**settings, output="last", classes_dimension="none")
    assert Evaluator.of(none, space).quality == "output_fidelity"
    for wrong in ({"score": "auc"}, {"classes_dimension": "x"}, {"score": f"{users_file}:none"}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} .*must (be|exist)"):
            load_workload(**settings, **wrong)


def test_a_full_disk_names_the_study_and_keeps_what_is_finished(whole, tmp_path):
    path = tmp_path / "study.journal"
    with ExitStack() as stack, pytest.raises(OSError, match="File too large") as caught:

        def fill(trial, finished, trials):
            if finished == 6:
                stack.enter_context(largest_file(path.stat().st_size + 17))

        small_search(tmp_path, on_progress=fill)
    assert caught.value.filename == str(path)
    assert len(load_study(path).of_state("complete")) == 6
    assert table(small_search(tmp_path, resume=True)) == table(whole)


def test_reports_that_cannot_be_written_leave_the_old_ones(whole, tmp_path):
    report = StudyReport(result=whole)
    simulation = simulate(small_workload().trace, preset("dense_16x16"))
    files = {
        tmp_path / "report.html": report.write,
        tmp_path / "page.json": simulation.write_json,
        tmp_path / "page.csv": simulation.write_csv,
        tmp_path / "page.html": simulation.write_html,
    }
    for there in (False, True):
        before = contents(tmp_path)
        assert bool(before) == there
        for path, write in files.items():
            with largest_file(100), pytest.raises(OSError, match="File too large") as caught:
                write(path)
            assert caught.value.filename == str(path)
            assert contents(tmp_path) == before
        for path, write in files.items():
            write(path)


def test_a_report_is_written_with_its_designs_or_not_at_all(whole, tmp_path):
    """The pages of designs fit, the report's own does not: it holds a picture more."""
    report, page = StudyReport(result=whole), tmp_path / "report.html"
    report.write_html(page)
    before = contents(tmp_path)
    largest = max(len(content) for path, content in before.items() if path != page)
    assert len(before) > 2 and largest < len(before[page])
    for folder in (tmp_path, tmp_path / "new"):
        folder.mkdir(exist_ok=True)
        with largest_file(largest + 1), pytest.raises(OSError, match="File too large") as caught:
            report.write_html(folder / page.name)
        assert caught.value.filename == str(folder / page.name)
        assert contents(tmp_path) == before
    assert list((tmp_path / "new").iterdir()) == []


def test_a_report_goes_through_links_and_into_pipes(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_atomically(tmp_path / "link", "once\r\n")
    write_atomically(tmp_path / "link", "é\n")
    assert (tmp_path / "file").read_bytes() == "é\n".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
    write_atomically("/dev/null", "gone")
    with pytest.raises(FileNotFoundError, match="none/file"):
        write_atomically(tmp_path / "none/file", "")
