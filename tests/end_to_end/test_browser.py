"""The pages in a real browser: every plot is drawn, no script fails, nothing is fetched."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from accelerators import preset
from codesign import nested_search
from codesign.report.nested_page import write_nested_html
from codesign.report.pictures import trial_pixels
from codesign.report.similarity_page import Measured, write_similarity_html
from codesign.report.study_report import StudyReport
from codesign.report.sweep_page import write_sweep_html
from codesign.report.verdict import best_trial
from codesign.study.sweep import read_settings, sweep
from simulator import LshReuse, decide
from simulator.pages.simulation_page import simulation_html
from tests.small_search import SmallSegmenter, small_search, small_workload

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    workload = small_workload(SmallSegmenter().eval(), labels=False)
    result = small_search(folder / "study", workload=workload, trials=6)
    summary = best_trial(result).summary | {"workload": result.specification["workload"]}
    pixels = trial_pixels(workload, result)
    (folder / "simulation.html").write_text(simulation_html(summary))
    StudyReport(result=result, pixels=pixels).write_html(folder / "study.html")
    base = preset("reuse_16x16")
    settings = read_settings(["array.rows=8,16", "cache.replacement=lru,fifo"], base)
    policy = LshReuse(hashes=6, length=9)
    result = sweep(small_workload().trace, base, policy, settings)
    write_sweep_html(result, folder / "sweep.html")
    fronts = nested_search(small_workload(), trials=2, storage=folder / "nested", executor="inline")
    write_nested_html(fronts, folder / "nested.html")
    trace = small_workload().trace
    write_similarity_html(
        trace, decide(trace, policy), Measured.of(trace), folder / "similarity.html", name="Noise"
    )
    return folder


def browse(page: Path, profile: Path, *options: str) -> str:
    """Open a page without a network; what the browser prints."""
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=10000",
            f"--user-data-dir={profile}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("name", "plots"),
    [
        ("simulation.html", 6),
        ("study.html", 11),
        ("study_designs/000.html", 6),
        ("sweep.html", 1),
        ("nested.html", 2),
        ("similarity.html", 3),
    ],
)
def test_plots_are_drawn_without_errors(pages, tmp_path, name, plots):
    document = browse(pages / name, tmp_path, "--dump-dom")
    body = re.search(r"<body[^>]*>", document).group()
    assert "data-error" not in body, body
    assert f'data-drawn="{plots}"' in body
    # Plotly draws each plot into layers of its own.
    drawn = re.findall(r'data-figure="([\w-]+)-data"[^>]*>\s*<div class="plot-container', document)
    assert len(drawn) == plots
    assert document.count('class="main-svg"') >= plots


def test_a_click_on_a_point_opens_its_simulation(pages, tmp_path):
    click = """<script>
    const front = document.querySelector("#pareto .plot");
    setTimeout(() => front.emit("plotly_click",
      { points: [{ data: front.data[1], pointNumber: 0 }] }), 1000);
    </script></body>"""
    page = pages / "clicked.html"
    page.write_text((pages / "study.html").read_text().replace("</body>", click))
    document = browse(page, tmp_path, "--dump-dom")
    assert re.search(r'<p class="kind">Trial \d+ of the search', document)


def test_page_is_readable_at_1200_pixels(pages, tmp_path):
    picture = tmp_path / "page.png"
    browse(
        pages / "study.html", tmp_path, f"--screenshot={picture}", "--window-size=1200,7500",
        "--hide-scrollbars",
    )  # fmt: skip
    with Image.open(picture) as image:
        assert image.size == (1200, 7500)
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
        assert colours is not None
    found = {colour for _, colour in colours}
    background = max(colours)[1]
    assert len(found) > 100  # text, bars and points, not an empty sheet
    assert (0x41, 0x78, 0xBE) in found  # the systolic array's colour in a bar
    assert sum(background) in (3 * 255, 0x14 + 0x18 + 0x1F)  # the light or the dark sheet
