"""What the command line prints, writes and exits with; wrong input gets one clear message."""

import csv
import json
import os
import signal
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from accelerators import BUILT_IN_TABLES, Accelerator, ConfigError, dram_kinds, preset
from codesign import load_study, nested_search, search
from codesign.cli import app as cli
from codesign.cli import demo, terminal
from codesign.cli import presets as presets_command
from codesign.cli.outputs import check_directory, check_files
from codesign.space.lookup import find_accelerator, policy_from_options
from simulator import LshReuse, NoReuse
from tests.small_search import (
    SmallNetwork,
    SmallSegmenter,
    small_search,
    small_space,
    small_workload,
)
from tests.small_search import table as trials_table
from workloads import Gemm, WorkloadTrace, models

COMMANDS = (
    "baselines", "capture", "compare", "demo", "measure", "nested", "presets", "report", "search",
    "similarity", "simulate", "sweep", "train",
)  # fmt: skip
COSTS = "Costs: hwcomponents_45nm (45 nm); DRAM focus_2026 (100 pJ per byte)."
SCALE_SIM = Path(__file__).parents[1] / "crosscheck" / "data" / "scale_sim"


def run(*arguments, code=0):
    """Run a command in this process; standard output and error."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return small_workload().trace.save(tmp_path_factory.mktemp("trace") / "trace")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    small_search(path, trials=4)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_with_an_example(command):
    shown, _ = run(command, "--help")
    assert f"Example: codesign {command}" in " ".join(shown.split())


def test_no_arguments_show_the_commands():
    result = CliRunner().invoke(cli.app, [])
    assert all(command in result.output for command in COMMANDS)


def test_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "codesign", "presets", "nothing"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: preset name must be one of")
    assert "Traceback" not in done.stderr


def test_presets_lists_and_prints_python():
    listed, _ = run("presets")
    assert "reuse_16x16_int8" in listed
    source, _ = run("presets", "reuse_32x32")
    scope = {}
    exec(source, scope)
    assert scope["accelerator"] == preset("reuse_32x32")


def test_presets_lists_every_cost_table_with_its_source_and_every_kind_of_dram():
    listed = " ".join(run("presets")[0].split())
    assert all(name in listed for name in (*BUILT_IN_TABLES, *dram_kinds()))
    assert "M. Horowitz" in listed
    assert "CACTI 7" in listed


def costs_in(path):
    """What the rows of a CSV name as their costs."""
    return {(row["cost_table"], row["dram_kind"]) for row in rows_of(path)}


def test_costs_are_named_in_every_output(trace, tmp_path):
    paths = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "html")}
    options = [part for kind, path in paths.items() for part in (f"--{kind}", path)]
    timeline = tmp_path / "timeline.json"
    printed, _ = run(
        "simulate", trace, "--layer", "first=6,9", *options, "--timeline", timeline,
        "--technology", "horowitz_2014_45nm",
    )  # fmt: skip
    line = "Costs: horowitz_2014_45nm (45 nm); DRAM focus_2026 (100 pJ per byte)."
    assert line in printed.splitlines()
    named = {"cost_table": "horowitz_2014_45nm", "dram_kind": "focus_2026"}
    assert named.items() <= json.loads(timeline.read_text())["otherData"].items()
    assert costs_in(paths["csv"]) == {tuple(named.values())}
    for design in json.loads(paths["json"].read_text())["designs"].values():
        assert design["accelerator"]["technology"] == "horowitz_2014_45nm"
    assert "horowitz_2014_45nm, 45 nm: energy of multiply and add: M. Horowitz" in (
        paths["html"].read_text()
    )


def test_technology_changes_energy_and_not_time(trace, tmp_path):
    mine = tmp_path / "mine.csv"
    shipped = resources.files("accelerators") / "data" / "hwcomponents_22nm.csv"
    mine.write_text(shipped.read_text())
    found = {}
    for table in ("hwcomponents_45nm", "hwcomponents_22nm", mine):
        out = tmp_path / "out.json"
        printed, _ = run(
            "simulate", trace, "--layer", "first=6,9", "--technology", table, "--json", out
        )
        assert f"Costs: {table} (" in printed
        found[table] = json.loads(out.read_text())["designs"]["reuse"]
    old, new, own = found.values()
    assert old["cycles"] == new["cycles"] == own["cycles"]
    assert new["energy_uj_per_image"] < old["energy_uj_per_image"]
    assert new["area_mm2"] < old["area_mm2"]
    for number in ("energy_uj_per_image", "area_mm2"):
        assert own[number] == new[number]


def test_technology_goes_with_scale_sim_files(tmp_path):
    files = [SCALE_SIM / "a32_ws.cfg", SCALE_SIM / "alexnet.csv"]
    out = tmp_path / "out.csv"
    table = "hwcomponents_28nm"
    run("simulate", "--scale-sim", *files, "--technology", table, "--csv", out)
    assert {cost_table for cost_table, _ in costs_in(out)} == {table}


def test_a_broken_cost_table_is_named_by_path_line_and_rule(trace, tmp_path):
    mine = tmp_path / "mine.csv"
    shipped = resources.files("accelerators") / "data" / "hwcomponents_22nm.csv"
    mine.write_text(shipped.read_text().replace(",0.0178,", ",none,", 1))
    (number,) = [n for n, text in enumerate(mine.read_text().splitlines(), 1) if ",none," in text]
    _, told = run("simulate", trace, "--layer", "first=6,9", "--technology", mine, code=2)
    assert told == (
        f"Error: Accelerator.technology names a broken table: CostTable[{mine}] line {number} "
        "energy_pj must be a number above 0 and at most 1e+12, got 'none'; give the value in the "
        "unit of the column's name\n"
    )
    for command, more in (("simulate", []), ("sweep", ["--set", "array.rows=8"])):
        _, told = run(
            command, trace, "--layer", "first=6,9", *more, "--technology", "horowitz", code=2
        )
        assert "got 'horowitz'; use 'horowitz_2014_45nm'" in told
        assert all(name in told for name in BUILT_IN_TABLES)


def test_simulate_prints_layers_and_verdict_and_writes_files(trace, tmp_path):
    paths = [tmp_path / "new" / f"out.{kind}" for kind in ("json", "csv", "html")]
    options = [part for path in paths for part in (f"--{path.suffix[1:]}", path)]
    printed, told = run(
        "simulate", trace, "--hashes", 6, "--length", 9, "--layer", "answers=dense", *options
    )
    assert "first" in printed
    assert "of a dense design of equal area" in printed
    assert told.count("wrote ") == 3
    assert json.loads(paths[0].read_text())["verdict"] in printed
    assert paths[1].read_text().startswith("design,layer")
    assert "<!DOCTYPE html>" in paths[2].read_text()


def test_simulate_takes_options_apart(trace, tmp_path):
    out = tmp_path / "r.json"
    options = ["--scope", "batch", "--thresholds", "zero", "--learning", "task"]
    options += ["--order", "channels_last", "--representative", "first", "--json", out]
    run("simulate", trace, "--layer", "first=15,5", *options)
    policy = json.loads(out.read_text())["policy"]
    expected = LshReuse(
        hashes=15,
        length=5,
        scope="batch",
        thresholds="zero",
        learning="task",
        order="channels_last",
        representative="first",
    )
    assert policy["layers"]["first"] == expected.describe()
    assert policy["default"] == {"policy": "none"}


def test_simulate_knows_the_accuracy_with_the_model(trace, tmp_path, monkeypatch):
    torch.manual_seed(0)
    weights = small_workload().model.state_dict()
    monkeypatch.setattr("workloads.models.load", lambda name, weights, seed: model)
    model = SmallNetwork().eval()
    model.load_state_dict(weights)
    printed, _ = run("simulate", trace, "--layer", "first=10,9", "--model", "any")
    assert "accuracy" in printed
    model.answers.bias.data += torch.arange(5.0)
    _, told = run("simulate", trace, "--layer", "first=10,9", "--model", "any", code=2)
    assert "--model must be the model that was captured" in told


def test_simulate_prints_and_writes_the_error_bound(trace, tmp_path, monkeypatch):
    monkeypatch.setattr("workloads.models.load", lambda *_, **__: small_workload().model)
    out, page = tmp_path / "report.json", tmp_path / "page.html"
    options = ("--layer", "first=6,9", "--model", "any", "--error-bound")
    printed, _ = run("simulate", trace, *options, "--json", out, "--html", page)
    assert "Error of the outputs, measured:" in printed
    report = json.loads(out.read_text())
    bound = report["error_bound"]
    # The measured error is a sum, the reported one a mean over the outputs.
    outputs = WorkloadTrace.load(trace).outputs.size
    assert bound["measured"] == pytest.approx(report["output_mse"] * outputs)
    assert bound["rigorous_holds"]
    assert "Error bound and error" in page.read_text()
    _, told = run("simulate", trace, "--layer", "first=6,9", "--error-bound", code=2)
    assert "--error-bound must come with --model" in told


def test_simulate_runs_shapes_alone_on_a_dense_design(tmp_path):
    shapes = WorkloadTrace.from_gemms([("fc", Gemm(m=8, n=8, k=8))]).save(tmp_path / "shapes")
    printed, _ = run("simulate", shapes, "--accelerator", "dense_16x16")
    assert "runs dense" in printed


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_simulate_reads_scale_sim_files(tmp_path, dataflow):
    out = tmp_path / "out.csv"
    files = [SCALE_SIM / f"a32_{dataflow}.cfg", SCALE_SIM / "alexnet.csv"]
    printed, _ = run("simulate", "--scale-sim", *files, "--csv", out)
    assert "Conv1" in printed
    recorded = {
        row["layer"]: row
        for row in rows_of(SCALE_SIM / "recorded_cycles_3.0.0.csv")
        if (row["net"], row["array"], row["dataflow"]) == ("alexnet", "32x32", dataflow)
    }
    rows = rows_of(out)
    assert [row["layer"] for row in rows] == sorted(recorded)
    for row in rows:
        expected = recorded[row["layer"]]
        assert [row[name] for name in "mnk"] == [expected[name] for name in "MNK"]
        # SCALE-Sim prints one cycle less for every layer.
        assert int(row["compute_cycles"]) == int(expected["scalesim_total_cycles"]) + 1
        blamed = [int(value) for name, value in row.items() if name.startswith("blamed_")]
        assert sum(blamed) == int(row["cycles_per_batch"])
        assert len(blamed) == 9
        assert int(row["dram_inputs_bytes_per_batch"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hashes", 9, "--length", 8], "--scale-sim must stand without --hashes, --length:"),
        (["--layer", "Conv1=4,4"], "without --layer:"),
        (["--accelerator", "reuse_16x16"], "without --accelerator:"),
        (["--model", "cifarnet"], "without --model:"),
        (["--scope", "batch", "--thresholds", "zero"], "without --scope, --thresholds:"),
        (["trace"], "without TRACE:"),
    ],
)
def test_scale_sim_files_stand_alone(arguments, message):
    files = [SCALE_SIM / "a32_ws.cfg", SCALE_SIM / "alexnet.csv"]
    printed, told = run("simulate", "--scale-sim", *files, *arguments, code=2)
    assert printed == ""
    assert message in told
    _, told = run("simulate", "--scale-sim", *files[::-1], code=2)
    assert told.startswith("Error: ")
    _, told = run("simulate", code=2)
    assert told.startswith("Error: TRACE must be given")


def test_simulate_writes_a_timeline_that_perfetto_reads(trace, tmp_path):
    paths = {engine: tmp_path / f"{engine}.json" for engine in ("compiled", "event")}
    for engine, path in paths.items():
        run("simulate", trace, "--layer", "first=6,9", "--engine", engine, "--timeline", path)
    timeline = json.loads(paths["compiled"].read_text())
    assert timeline == json.loads(paths["event"].read_text())
    slices = [event for event in timeline["traceEvents"] if event["ph"] == "X"]
    assert all({"pid", "tid", "ts", "dur", "name"} <= set(event) for event in slices)
    named = {event["args"]["name"] for event in timeline["traceEvents"] if event["ph"] == "M"
             and event["name"] == "thread_name"}  # fmt: skip
    assert {"layers", "DMA", "systolic array", "reconstructor"} <= named
    end = max(event["ts"] + event["dur"] for event in slices)
    assert end == timeline["otherData"]["cycles"] > 0


def test_simulate_refuses_an_unknown_engine(trace):
    _, told = run("simulate", trace, "--layer", "first=6,9", "--engine", "evnt", code=2)
    assert "engine must be one of 'compiled', 'event', got 'evnt'; use 'event'" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hashes", 10], "--hashes and --length must be given together"),
        ([], "has reuse units and must be told how to use them"),
        (["--layer", "first"], "--layer must be NAME=HASHES,LENGTH"),
        (["--layer", "first=1"], "--layer must be NAME=HASHES,LENGTH"),
        (["--layer", "first=a,b"], "--layer must be NAME=HASHES,LENGTH"),
        (["--layer", "nowhere=4,4"], "pattern 'nowhere' must match a layer"),
        (["--hashes", 99, "--length", 8], "LshReuse.hashes must be an integer from 1 to 62"),
        (["--hashes", 9, "--length", 8, "--scope", "x"], "LshReuse.scope must be"),
        (["--hashes", 9, "--length", 8, "--learning", "pca"], "projection must be 'int8' with"),
        (
            ["--hashes", 9, "--length", 8, "--accelerator", "dense_16x16"],
            "must have front_end, cache",
        ),
        (["--hashes", 9, "--length", 8, "--accelerator", "reuse_16"], "use 'reuse_16x16'"),
        (["--accelerator", "mine.py"], "use mine.py:NAME"),
        (["--accelerator", "mine.py:x"], "accelerator file must exist"),
        (["--accelerator", "no_such_module:x"], "must be importable"),
        (["--accelerator", "json:nothing"], "no accelerators"),
    ],
)
def test_simulate_refuses_wrong_input_in_one_message(trace, arguments, message):
    printed, told = run("simulate", trace, *arguments, code=2)
    assert printed == ""
    assert told.startswith("Error: ")
    assert message in told
    assert "Traceback" not in told


def test_missing_trace_and_study_exit_with_2(tmp_path):
    for arguments in (
        ["simulate", tmp_path / "no", "--hashes", 4, "--length", 4],
        ["report", tmp_path / "no"],
        ["search", "--out", tmp_path / "no", "--resume"],
        ["simulate", "--unknown-option"],
        ["unknown-command"],
    ):
        _, told = run(*arguments, code=2)
        assert "Traceback" not in told


def test_capture_refuses_to_overwrite_before_the_model_runs(trace, monkeypatch):
    monkeypatch.setattr(
        "codesign.evaluation.workload.load_workload", None
    )  # calling it would raise
    _, told = run("capture", "--out", trace, code=2)
    assert str(trace) in told


def test_capture_keeps_what_it_ran(tmp_path, monkeypatch):
    monkeypatch.setattr("codesign.evaluation.workload.load_workload", lambda **_: small_workload())
    printed, _ = run("capture", "--out", tmp_path / "trace")
    assert "3 layers" in printed
    assert len(WorkloadTrace.load(tmp_path / "trace")) == 3


def test_report_writes_page_json_and_csv(study, tmp_path):
    printed, told = run("report", study, "--out", tmp_path / "r.html")
    assert "SmallNetwork on 6 images of noise" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"r.html", "r.json", "r.csv", "r_designs"}
    assert "wrote" in told
    _, told = run("report", study, "--out", tmp_path / "r.txt", code=2)
    assert "--out must end in .html" in told


@pytest.fixture
def small_cli(monkeypatch):
    """The search command on the small network, in this process."""

    def inline(workload, space, **settings):
        settings.pop("ray_address", None)
        return search(workload, small_space(workload), executor="inline", **settings)

    monkeypatch.setattr("codesign.evaluation.workload.load_workload", lambda **_: small_workload())
    monkeypatch.setattr("codesign.study.search.search", inline)
    return monkeypatch


def test_search_writes_a_study_and_its_report(small_cli, tmp_path):
    printed, told = run("search", "--out", tmp_path, "--trials", 3)
    assert "SmallNetwork" in printed
    assert (tmp_path / "study.journal").is_file()
    assert (tmp_path / "report.html").is_file()
    assert "report.html" in told
    assert COSTS in printed.splitlines()
    assert costs_in(tmp_path / "report.csv") == {("hwcomponents_45nm", "focus_2026")}
    _, told = run("search", "--out", tmp_path, "--trials", 5, code=2)
    assert "--resume" in told
    run("search", "--out", tmp_path, "--trials", 5, "--resume")
    assert len(json.loads((tmp_path / "report.json").read_text())["trials"]) == 5


def test_options_and_a_study_file_make_the_same_search(small_cli, tmp_path):
    options = ["--trials", 3, "--optimiser", "sobol", "--max-area-mm2", 2.3, "--seed", 4]
    run("search", "--out", tmp_path / "first", *options)
    file = tmp_path / "first" / "study.toml"
    text = file.read_text()
    assert 'optimiser = "sobol"' in text and "area_mm2 = 2.3" in text
    url = f"sqlite:///{tmp_path / 'study.db'}"
    run("search", "--study", file, "--out", tmp_path / "again", "--storage", url)
    assert (tmp_path / "again" / "study.toml").read_text() == text
    first, again = (
        json.loads((tmp_path / name / "report.json").read_text()) for name in ("first", "again")
    )
    assert [t["parameters"] for t in first["trials"]] == [t["parameters"] for t in again["trials"]]
    run("report", url, "--out", tmp_path / "report.html")
    # Options given beside a file win.
    run("search", "--study", file, "--out", tmp_path / "more", "--trials", 4)
    assert (tmp_path / "more" / "study.toml").read_text() == text.replace(
        "trials = 3", "trials = 4"
    )
    # A directory knows how to go on.
    run("search", "--out", tmp_path / "first", "--resume", "--trials", 4)
    assert len(json.loads((tmp_path / "first" / "report.json").read_text())["trials"]) == 4
    _, told = run("search", "--out", tmp_path / "no", "--optimiser", "gpp", code=2)
    assert "search.optimiser must be one of gp, gpsampler, botorch" in told
    _, told = run("search", "--out", tmp_path / "no", "--study", tmp_path / "none.toml", code=2)
    assert "none.toml: No such file" in told


@pytest.fixture(scope="module")
def fronts(tmp_path_factory):
    path = tmp_path_factory.mktemp("nested")
    nested_search(small_workload(), trials=3, storage=path, executor="inline")
    return path


def test_search_on_fronts_and_few_images_first_runs_again_from_its_file(
    small_cli, fronts, tmp_path
):

    searched = []

    def inline(workload, space, **settings):
        searched.append(space)
        settings.pop("ray_address", None)
        return search(workload, space, executor="inline", **settings)

    small_cli.setattr("codesign.study.search.search", inline)
    options = ["--fronts", fronts, "--first-images", 2, "--trials", 3]
    run("search", "--out", tmp_path / "first", *options)
    text = (tmp_path / "first" / "study.toml").read_text()
    assert f'fronts = "{fronts}"' in text and "first_images = 2" in text
    assert f"fronts = &#34;{fronts}&#34;" in (tmp_path / "first" / "report.html").read_text()
    run("search", "--study", tmp_path / "first" / "study.toml", "--out", tmp_path / "again")
    assert searched[0] == searched[1]
    assert {"first.position", "second.position"} <= {p.name for p in searched[0].parameters}
    first, again = (load_study(tmp_path / name) for name in ("first", "again"))
    assert trials_table(first) == trials_table(again) and first.specification["first_images"] == 2
    run("search", "--out", tmp_path / "first", "--resume", "--trials", 4)


def test_fronts_of_something_else_are_refused(small_cli, fronts, tmp_path):

    missing = ["search", "--out", tmp_path / "out", "--fronts", tmp_path / "none"]
    _, told = run(*missing, code=2)
    assert f"{tmp_path / 'none' / 'nested.journal'} must be a nested search, got no such" in told
    _, told = run("search", "--out", tmp_path / "out", "--fronts", fronts, "--layers", 2, code=2)
    assert "--layers must be given without --fronts, got 2" in told
    # Other weights; then layers of other names.
    for other in (SmallNetwork().eval(), torch.nn.Sequential(SmallNetwork()).eval()):
        small_cli.setattr(
            "codesign.evaluation.workload.load_workload",
            lambda other=other, **_: small_workload(other),
        )
        _, told = run("search", "--out", tmp_path / "out", "--fronts", fronts, code=2)
        assert f"{fronts / 'nested.journal'} must be a nested search of SmallNetwork on" in told
        assert "with layers first, second; give the fronts of" in told
    assert not (tmp_path / "out" / "study.journal").exists()


def test_nested_refuses_what_is_there_before_the_model_runs(fronts, monkeypatch):
    monkeypatch.setattr(
        "codesign.evaluation.workload.load_workload", None
    )  # calling it would raise
    _, told = run("nested", "--out", fronts, code=2)
    assert "must not exist, got a study; go on with it by --resume" in told


@pytest.mark.parametrize(
    "command",
    [
        ["simulate", "no trace", "--html", "OUT/x.html"],
        ["simulate", "no trace", "--timeline", "OUT/x.json"],
        ["sweep", "no trace", "--csv", "OUT/x.csv"],
        ["report", "no study", "--out", "OUT/x.html"],
        ["capture", "--model", "no model", "--out", "OUT"],
        ["search", "--study", "no.toml", "--out", "OUT/deeper"],
        ["nested", "--model", "no model", "--out", "OUT"],
        ["demo", "--out", "OUT"],
    ],
)
def test_an_output_that_cannot_be_written_is_refused_first(tmp_path, command):
    file = tmp_path / "file"
    file.touch()
    _, told = run(*(part.replace("OUT", str(file)) for part in command), code=2)
    assert f"the file {file} in its place; give another path" in told
    assert file.read_bytes() == b""


def test_outputs_may_be_new_old_or_a_device_but_no_directory(tmp_path):
    (tmp_path / "old").touch()
    check_files(html=tmp_path / "a" / "b" / "new", csv=tmp_path / "old", json=Path("/dev/stdout"))
    check_directory(tmp_path / "a" / "new")
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError) as caught:
        check_files(html=tmp_path, csv=tmp_path / "old" / "new", json=None)
    text = str(caught.value)
    assert f"--html {tmp_path} must be a file that can be written, got a directory" in text
    assert f"--csv {tmp_path / 'old' / 'new'} must be" in text and "--json" not in text


def test_read_only_places_are_refused(tmp_path, monkeypatch):
    (tmp_path / "old").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(ConfigError, match="got one that is read-only; give another path"):
        check_files(html=tmp_path / "old")
    with pytest.raises(ConfigError, match=f"got {tmp_path}, which is read-only"):
        check_files(html=tmp_path / "new" / "deeper")
    with pytest.raises(ConfigError, match=f"got {tmp_path}, which is read-only"):
        check_directory(tmp_path)


def test_ctrl_c_while_the_program_loads_is_quiet():
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "codesign", "presets"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    # NumPy is there before PyTorch and Optuna are: they take seconds.
    loaded = next(line for line in process.stderr if line.split()[-1] == "numpy")
    process.send_signal(signal.SIGINT)
    shown, told = process.communicate(timeout=120)
    assert loaded and process.returncode == 130
    assert shown == "" and "Traceback" not in told


def test_stopped_search_names_the_way_on_and_exits_with_130(small_cli, tmp_path):

    def stopped(*_, **__):
        raise KeyboardInterrupt

    small_cli.setattr("codesign.study.search.search", stopped)
    small_cli.setattr(sys, "argv", ["codesign", "search", "--out", "my study"])
    _, told = run("search", "--out", tmp_path, code=130)
    assert told == "Stopped; nothing is kept yet.\n"  # there is nothing to go on with
    (tmp_path / "study.journal").write_text("begun")
    small_cli.setattr("codesign.study.store.check_resume", lambda *_, **__: None)
    _, told = run("search", "--out", tmp_path, code=130)
    assert "trials are kept. Go on with: codesign search --out 'my study' --resume" in told


def test_a_search_whose_ray_died_names_the_way_on_and_exits_with_4(small_cli, tmp_path):
    from codesign.study.runner import RayDiedError

    def died(*_, **__):
        (tmp_path / "study.journal").write_text("begun")
        raise RayDiedError("Ray has died", "its raylet is gone")

    small_cli.setattr("codesign.study.search.search", died)
    small_cli.setattr(sys, "argv", ["codesign", "search", "--out", "my study"])
    _, told = run("search", "--out", tmp_path, code=4)
    assert told == (
        "Ray has died; finished trials are kept. Go on with: "
        "codesign search --out 'my study' --resume\n"
    )


def test_search_on_a_full_disk_names_the_file_and_the_way_on(small_cli, tmp_path):
    small_cli.setattr(sys, "argv", ["codesign", "search", "--out", "my study"])
    (tmp_path / "study.journal").touch()  # as a search leaves it where nothing can be written
    (tmp_path / "report.html").mkdir()
    _, told = run("search", "--out", tmp_path, "--trials", 2, code=2)
    assert "trials are kept" in told and "codesign search --out 'my study' --resume" in told
    assert f"Error: {tmp_path / 'report.html'}: Is a directory" in told
    (tmp_path / "report.html").rmdir()
    run("search", "--out", tmp_path, "--trials", 2, "--resume")
    (tmp_path / "file").touch()
    _, told = run("search", "--out", tmp_path / "file" / "study", code=2)
    assert "trials are kept" not in told and str(tmp_path / "file") in told


def test_a_bug_exits_with_1_and_shows_where(monkeypatch):
    monkeypatch.setattr(presets_command, "presets", lambda: 1 / 0)
    _, told = run("presets", code=1)
    assert "ZeroDivisionError" in told
    assert "bug in codesign" in told


def test_interrupt_exits_with_130(monkeypatch):
    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setattr(presets_command, "presets", stopped)
    assert run("presets", code=130)[1] == "Stopped.\n"


def test_a_search_stopped_as_it_measures_keeps_nothing_and_says_so(monkeypatch, tmp_path):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("codesign.evaluation.workload.load_workload", lambda **_: small_workload())
    monkeypatch.setattr("codesign.evaluation.allotting.decide", stopped)
    asked = ("--techniques", "dense,leaders", "--accelerator", "leader_32x32", "--out", tmp_path)
    _, told = run("search", *asked, code=130)
    assert told == "Stopped; nothing is kept yet.\n"
    assert not [*tmp_path.iterdir()]


def test_progress_is_for_terminals_only(monkeypatch, capsys):
    with terminal.trial_progress(3) as told:
        assert told == (None, None)  # a test's standard error is no terminal
    monkeypatch.setenv("FORCE_COLOR", "1")
    with terminal.trial_progress(1) as (on_progress, on_measured):
        on_measured(1, 2)
        on_measured(2, 2)
        on_progress(small_trial(), 1, 1)
    told = capsys.readouterr().err
    assert "measuring what layers bear" in told and "searching" in told


def small_trial():
    from codesign import Trial

    return Trial(
        number=0, state="failed", origin="sampler", parameters={}, summary={}, reason="boom"
    )


def test_accelerator_comes_from_a_file_as_design_or_function(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from accelerators import preset\nA = preset('dense_16x16')\n"
        "def build():\n    return preset('reuse_16x16')\nB = 3\n"
    )
    assert find_accelerator(f"{path}:A") == preset("dense_16x16")
    assert find_accelerator(f"{path}:build") == preset("reuse_16x16")
    assert isinstance(find_accelerator("reuse_32x32"), Accelerator)
    with pytest.raises(ConfigError, match="must be an Accelerator, got int"):
        find_accelerator(f"{path}:B")
    with pytest.raises(ConfigError, match="it has A"):
        find_accelerator(f"{path}:C")
    path.write_text("1 / 0")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        find_accelerator(f"{path}:A")


def test_policy_takes_the_projection_of_the_front_end():
    options = {
        "layers": [],
        "scope": "image",
        "thresholds": "spread",
        "learning": "none",
        "order": "channels_first",
        "representative": "centroid",
    }
    policy = policy_from_options(
        hashes=4, length=4, accelerator=preset("reuse_16x16_int8"), **options
    )
    assert policy == LshReuse(hashes=4, length=4, projection="int8")
    dense = policy_from_options(
        hashes=None, length=None, accelerator=preset("dense_16x16"), **options
    )
    assert dense == NoReuse()


def test_simulate_shows_pictures_of_a_model_that_answers_for_pixels(tmp_path):
    model = models.load("tests.small_search:SmallSegmenter")
    small_workload(model, labels=False).trace.save(tmp_path / "trace")
    asked = ["simulate", tmp_path / "trace", "--hashes", 4, "--length", 9]
    run(*asked, "--html", tmp_path / "blind.html")  # nothing is known without the model
    assert "What the network sees" not in (tmp_path / "blind.html").read_text()
    run(*asked, "--model", "tests.small_search:SmallSegmenter", "--html", tmp_path / "x.html")
    assert "% of pixels agree" in (tmp_path / "x.html").read_text()


def test_demo_shows_pictures_of_what_reuse_does(tmp_path, monkeypatch):
    asked = []

    def loaded(**settings):
        asked.append(settings)
        return small_workload(SmallSegmenter().eval(), labels=False)

    def inline(workload, space, **settings):
        from codesign import search

        settings.pop("workers")
        return search(workload, small_space(workload), executor="inline", **settings)

    monkeypatch.setattr(demo, "load_workload", loaded)
    monkeypatch.setattr(demo, "GROUPS", "all")
    monkeypatch.setattr(demo, "search", inline)
    monkeypatch.setattr(demo.webbrowser, "open", None)  # calling it would raise
    for _ in range(2):  # the second replaces the first
        printed, _ = run("demo", "--out", tmp_path, "--trials", 3)
    assert "% of outputs agree with the dense model's" in printed
    assert "of pixels answered as by the dense model" in printed
    assert f"Report, with pictures: {tmp_path / 'report.html'}" in printed.splitlines()
    assert COSTS in printed.splitlines()
    assert "Where they differ" in (tmp_path / "report.html").read_text()
    run("demo", "--out", tmp_path, "--trials", 1, "--video", "own.mp4", "--first-frame", 7)
    assert [(each["inputs"], each["first_frame"]) for each in asked[1:]] == [
        ("bikes", demo.VIDEO_SCENE),
        ("own.mp4", 7),
    ]


def test_demo_needs_a_video_that_is_there_and_a_directory(tmp_path):
    _, told = run("demo", "--video", tmp_path / "none.mp4", "--out", tmp_path / "out", code=2)
    assert "existing file" in told and "one of every 12, from --first-frame on" in told
    (tmp_path / "file").touch()
    _, told = run("demo", "--out", tmp_path / "file", code=2)
    assert told.startswith(f"Error: --out {tmp_path / 'file'} must be a directory")


def test_stopped_demo_says_where_its_trials_are_and_exits_with_130(tmp_path, monkeypatch):
    def interrupted(workload, space, **settings):
        def interrupt(trial, finished, trials):
            if finished == 2:
                raise KeyboardInterrupt

        from codesign import search

        settings |= {"workers": 1, "executor": "inline", "on_progress": interrupt}
        return search(workload, small_space(workload), **settings)

    monkeypatch.setattr(demo, "load_workload", lambda **_: small_workload())
    monkeypatch.setattr(demo, "GROUPS", "all")
    monkeypatch.setattr(demo, "search", interrupted)
    _, told = run("demo", "--out", tmp_path, "--trials", 4, code=130)
    study = tmp_path / "demo.journal"
    assert f"codesign report {study}\n" in told
    printed, _ = run("report", study, "--out", tmp_path / "report.html")
    assert "for ResNet-18 scene parsing on 2 frames of bikes" in printed
    monkeypatch.setattr(demo, "search", lambda *_, **__: interrupted_at_once())
    told = run("demo", "--out", tmp_path, code=130)[1]
    assert told == "Stopped; nothing is kept yet.\n"


def interrupted_at_once():
    raise KeyboardInterrupt
