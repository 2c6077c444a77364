"""Pictures of what a network answers for pixels show those answers, and where they differ."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from accelerators import preset
from codesign import Workload
from codesign.report.pictures import trial_pixels
from codesign.report.study_report import StudyReport
from simulator import LshReuse, NoReuse, decide, pixel_answers, simulate
from simulator.pages.pixel_answers import pixel_answers_html
from tests.small_search import IMAGES, SmallSegmenter, small_search, small_workload
from workloads import capture
from workloads.traces.scores import IGNORED

REUSE = LshReuse(hashes=3, length=9)


def segmenting(*, labels: bool = False) -> Workload:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = SmallSegmenter().eval()
    return small_workload(model, labels=labels)


@pytest.fixture(scope="module")
def run_of():
    """A labelled workload and decisions on it."""
    workload = segmenting(labels=True)
    return workload, decide(workload.trace, REUSE, model=workload.model)


def pictures(html: str, words: str) -> list[np.ndarray]:
    """Those whose alternative text starts with these words."""
    found = re.findall(rf'<img src="data:image/png;base64,([^"]+)"\s+alt="{words}', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_answers_are_those_of_the_run(run_of):
    workload, run = run_of
    pixels = pixel_answers(workload.trace, run, frames=IMAGES)
    assert pixels.dense.shape == pixels.reuse.shape == (IMAGES, 12, 12)
    assert 0 < (pixels.dense == pixels.reuse).mean() == run.agreement < 1
    assert (pixels.labels == workload.trace.labels).all()
    assert pixels.layer == "second"  # as many positions as the first, more to multiply
    with torch.no_grad():
        plain = workload.model(torch.tensor(workload.trace.inputs[0])).argmax(1).numpy()
    assert (pixels.dense == plain).all()
    exact = decide(workload.trace, NoReuse(), model=workload.model)
    dense = pixel_answers(workload.trace, exact)
    assert (dense.reuse == dense.dense).all() and dense.clusters is None
    assert len(dense.frames) == 3


def test_differences_are_painted_and_nothing_else(run_of):
    workload, run = run_of
    pixels = pixel_answers(workload.trace, run, frames=2)
    html = pixel_answers_html(pixels, "A line.")
    reuse, over = pictures(html, "classes under reuse"), pictures(html, "[0-9.]+ % of pixels agree")
    for each, layer, differs in zip(reuse, over, pixels.dense != pixels.reuse, strict=True):
        assert (layer[..., 3] == 255 * differs).all()
        assert (layer[..., :3] == each).all()
    # Equal classes have equal colours, and different ones different.
    colours = {tuple(reuse[0][place]): pixels.reuse[0][place] for place in np.ndindex(12, 12)}
    assert len(colours) == len(np.unique(pixels.reuse[0])) > 1
    assert len(set(colours.values())) == len(colours)


def test_legend_names_what_is_shown(run_of):
    workload, run = run_of
    pixels = pixel_answers(workload.trace, run)
    labels = pixels.labels.copy()
    labels[0, 0, 0] = IGNORED
    html = pixel_answers_html(
        replace(pixels, labels=labels, dense=0 * pixels.dense + 2, reuse=0 * pixels.reuse + 30),
        "A line.",
    )
    assert "</span>car</span>" in html
    assert "</span>class 30</span>" in html and "class 255" not in html
    assert tuple(pictures(html, "classes as labelled")[0][0, 0]) == (0, 0, 0)
    assert "0.0 % of pixels agree" in html


def test_large_pictures_are_thinned(run_of):
    workload, run = run_of
    pixels = pixel_answers(workload.trace, run)
    large = np.repeat(np.repeat(pixels.reuse, 60, axis=1), 120, axis=2)  # 720 x 1440
    html = pixel_answers_html(replace(pixels, reuse=large, dense=large), "A line.")
    assert pictures(html, "classes under reuse")[0].shape == (240, 480, 3)


def test_other_networks_have_no_pictures():
    workload = small_workload()
    assert pixel_answers(workload.trace, decide(workload.trace, REUSE)) is None
    run = decide(workload.trace, REUSE, model=workload.model)
    assert run.answers.shape == (IMAGES,)
    assert pixel_answers(workload.trace, run) is None
    assert trial_pixels(replace(workload, model=None), None) == {}


def test_pages_show_the_pictures(run_of, tmp_path):
    workload, run = run_of
    report = simulate(workload.trace, preset("reuse_16x16"), run)
    assert "What the network sees" not in report.write_html(tmp_path / "plain.html").read_text()
    shown = replace(report, pixels=pixel_answers(workload.trace, run))
    html = shown.write_html(tmp_path / "page.html").read_text()
    assert "What the network sees" in html and "Clusters in second" in html
    assert f"{report.speedup_equal_area:.2f}× the speed" in html  # noqa: RUF001
    assert shown.to_dict() == report.to_dict()


def test_a_search_has_pictures_of_its_best_and_first_trial(tmp_path):
    workload = segmenting()
    result = small_search(tmp_path / "study", workload=workload, trials=4)
    assert result.quality == "pixel_agreement"
    pixels = trial_pixels(workload, result)
    for number, each in trial_pixels(workload, result).items():
        trial = result.trials[number]
        _, policy = result.design_of(trial)
        run = decide(workload.trace, policy, model=workload.model, calibration=workload.calibration)
        assert run.agreement == trial.values["accuracy"]
        assert (each.reuse == run.answers[[0, 2, 5]]).all()
    html = StudyReport(result=result, pixels=pixels).write_html(tmp_path / "x.html").read_text()
    assert "What the network sees" in html and "% of pixels agree" in html
    assert "of pixels answered as by the dense model" in html
    assert "What the network sees" in (tmp_path / "x_designs" / "000.html").read_text()


def test_capture_keeps_the_names_of_classes():
    images = torch.rand(2, 3, 12, 12)
    assert capture(SmallSegmenter().eval(), images).provenance["classes"] == ["sky", "road", "car"]
    assert "classes" not in small_workload().trace.provenance
