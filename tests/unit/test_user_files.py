"""What a user brings in files: found in one way, executed once, there in other processes too."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from accelerators import ConfigError, presets
from codesign import load_study, search
from codesign.cli import app as cli
from codesign.optimisers.registry import ask, optimiser_name
from codesign.space.lookup import find_accelerator, find_policy, find_score, policies
from codesign.testing import PROBLEM
from simulator import KMeansReuse, LshReuse, NoReuse, PerforationReuse
from tests.small_search import small_search, small_space, small_workload, table
from workloads import models
from workloads.user_files import UserFiles, named_in

ROOT = Path(__file__).parents[2]
POLICIES = """
from dataclasses import dataclass
from simulator import LshReuse

FINE = LshReuse(hashes=6, length=9)

@dataclass(frozen=True, kw_only=True)
class Mine(LshReuse):
    hashes: int = 6
    length: int | None = 9

def nothing():
    return 1 / 0
"""
OPTIMISER = """
import numpy as np
from codesign.optimisers.optimiser import Answer, Optimiser

class Mine(Optimiser):
    words = "random points of my own"

    def ask(self, problem, trials, *, seed):
        rng = np.random.default_rng([seed, len(trials)])
        drawn = {}
        for name, each in problem.distributions.items():
            choices = getattr(each, "choices", None)
            number = rng.integers(len(choices) if choices else each.high + 1)
            drawn[name] = choices[number] if choices else number
        return Answer(parameters=drawn)

class Wrong(Mine):
    def ask(self, problem, trials, *, seed):
        return Answer(parameters=dict.fromkeys(problem.distributions, 10**6))
"""


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stderr


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return small_workload().trace.save(tmp_path_factory.mktemp("trace") / "trace")


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(POLICIES)
    return file


@pytest.mark.parametrize("find", [find_accelerator, find_policy, find_score])
def test_a_name_that_means_nothing_gets_the_same_message(find):
    with pytest.raises(ConfigError, match=r"must be one of .*, file\.py:NAME or package\.module"):
        find("nothing like it")
    with pytest.raises(ConfigError, match=r"use mine\.py:NAME$"):
        find("mine.py")
    with pytest.raises(ConfigError, match=r"file must exist, got 'none\.py'; check the path"):
        find("none.py:Name")
    with pytest.raises(ConfigError, match="got no 'thing' in json; it has "):
        find("json:thing")


def test_the_nearest_name_is_told():
    with pytest.raises(ConfigError, match="use 'reuse_16x16'"):
        find_accelerator("reuse_16x61")
    with pytest.raises(ConfigError, match="use 'PerforationReuse'"):
        find_policy("PerforationRuse")
    assert find_accelerator("reuse_16x16") == presets()["reuse_16x16"]


def test_a_file_is_executed_once_and_anew_when_it_was_changed(tmp_path):
    file = tmp_path / "counts.py"
    file.write_text("from simulator import NoReuse\nclass Mine(NoReuse): pass\n")
    first = type(find_policy(f"{file}:Mine"))
    assert type(find_policy(f"{tmp_path}/./counts.py:Mine")) is first
    file.write_text("from simulator import NoReuse\nclass Mine(NoReuse): number = 2\n")
    assert type(find_policy(f"{file}:Mine")).number == 2


def test_what_a_file_defines_is_there_in_another_process(tmp_path):
    """Its text travels along: the file itself need not be there."""
    file = tmp_path / "gone.py"
    file.write_text("class Mine:\n    def __init__(self, x): self.x = x\n")
    made = named_in(f"{file}:Mine", "thing")(42)
    file.unlink()
    sent = pickle.dumps((UserFiles(), made))
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer)[1].x)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, input=sent, capture_output=True, check=True
    )
    assert done.stdout == b"42\n"


def test_a_file_imports_files_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside_mine.py").write_text("from simulator import NoReuse as Other\n")
    (tmp_path / "mine.py").write_text("from beside_mine import Other\nMine = Other()\n")
    assert isinstance(find_policy(f"{tmp_path}/mine.py:Mine"), NoReuse)


def test_where_a_users_code_raised_is_told(trace, tmp_path):
    file = tmp_path / "raises.py"
    file.write_text(
        "from simulator import NoReuse\nclass Mine(NoReuse):\n"
        "    def applies_to(self, layer):\n        raise ValueError('not yet')\n"
    )
    told = run("simulate", trace, "--policy", f"{file}:Mine", code=2)
    assert f"your code at {file}, line 4 must not raise, got ValueError: not yet" in told
    assert "bug in codesign" not in told


def test_a_search_gives_the_fields_that_a_policy_lacks():
    assert find_policy("PerforationReuse", searched={"computed": 0.5, "seed": 4}).seed != 4
    with pytest.raises(ConfigError, match=r"add --parameter policy\.computed=VALUE,VALUE"):
        find_policy("PerforationReuse", searched={})


def test_policies_are_known_by_their_class_and_take_settings():
    assert {"LshReuse", "KMeansReuse", "HyperCubeReuse", "PerforationReuse"} <= {*policies()}
    assert "PerLayer" not in policies()
    settings = ["computed=0.5", "mask=uniform", "seed=3"]
    expected = PerforationReuse(computed=0.5, mask="uniform", seed=3)
    assert find_policy("PerforationReuse", settings) == expected
    for clusters in (4, 0.25):  # a number of clusters, or a fraction of the rows
        found = find_policy("KMeansReuse", [f"clusters={clusters}", "length=none"])
        assert found == KMeansReuse(clusters=clusters, length=None)
        assert type(found.clusters) is type(clusters)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "policy PerforationReuse must be given computed, got nothing; add --policy-set"),
        (["computed=2"], r"PerforationReuse\.computed must be .* got 2\.0"),
        (["computed=half"], "--policy-set computed must be given numbers, got 'half'"),
        (["compted=0.5"], "must name a field of PerforationReuse, .* use 'computed'"),
        (["computed"], "--policy-set must be FIELD=VALUE"),
        (["computed=1", "computed=1"], "each field once, got 'computed=1'"),
    ],
)
def test_wrong_settings_of_a_policy_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        find_policy("PerforationReuse", settings)


def test_a_policy_of_ones_own_is_an_instance_or_a_class(mine):
    assert find_policy(f"{mine}:FINE") == LshReuse(hashes=6, length=9)
    assert find_policy(f"{mine}:FINE", ["hashes=8"]) == LshReuse(hashes=8, length=9)
    assert find_policy(f"{mine}:Mine", ["length=5"]).length == 5
    with pytest.raises(ConfigError, match="without further arguments, got ZeroDivisionError"):
        find_policy(f"{mine}:nothing")
    with pytest.raises(ConfigError, match=r"Path' must be a ReusePolicy, got \w*Path"):
        find_policy("pathlib:Path")


def test_commands_take_policies_by_name_and_file(trace, mine, tmp_path):
    out, reports = tmp_path / "report.json", []
    for options in (
        ("--hashes", 6, "--length", 9),
        ("--policy", "LshReuse", "--policy-set", "hashes=6", "--policy-set", "length=9"),
        ("--policy", f"{mine}:FINE"),
        ("--policy", f"{mine}:Mine"),
    ):
        run("simulate", trace, *options, "--json", out)
        reports.append(json.loads(out.read_text())["designs"])
    assert all(report == reports[0] for report in reports)
    own = ("--policy", f"{mine}:Mine")
    run("sweep", trace, *own, "--set", "array.rows=8,16")
    run("compare", trace, *own)
    kmeans = ("--policy", "KMeansReuse", "--policy-set", "clusters=4", "--policy-set")
    run("similarity", trace, *kmeans, "length=none", "--out", tmp_path / "page.html")


def test_leaders_run_on_their_preset_by_name(trace, tmp_path):
    out = tmp_path / "report.json"
    settings = ("tolerance=0.2", "scope=tile", "tile_rows=64", "tile_shape=block", "look_once=true")
    chosen = [word for each in settings for word in ("--policy-set", each)]
    named = ("--policy", "LeaderReuse", *chosen)
    run("simulate", trace, *named, "--accelerator", "leader_32x32", "--json", out)
    report = json.loads(out.read_text())
    assert report["policy"]["policy"] == "leaders" and report["policy"]["tolerance"] == 0.2
    assert report["designs"]["reuse"]["energy_pj"]["leader_table"] > 0
    told = run("simulate", trace, *named, "--accelerator", "reuse_32x32", code=2)
    assert "'reuse_32x32' must have leader_table" in told


def test_a_policy_and_the_options_of_lsh_are_one_of_the_two(trace, tmp_path):
    named = ("--policy", "LshReuse")
    told = run("simulate", trace, *named, "--hashes", 4, "--scope", "batch", code=2)
    assert "--policy must stand without --hashes, --scope, got both" in told
    told = run("similarity", trace, *named, "--hashes", 4, "--out", tmp_path / "x.html", code=2)
    assert "--policy must stand without --hashes, got both" in told
    told = run("simulate", trace, "--policy-set", "hashes=4", code=2)
    assert "--policy-set must come with --policy" in told


def test_an_optimiser_of_ones_own_searches_is_kept_and_goes_on(tmp_path):
    file = tmp_path / "optimiser.py"
    file.write_text(OPTIMISER)
    name = f"{file}:Mine"
    whole = small_search(tmp_path / "whole", optimiser=name, trials=6)
    assert whole.specification["optimiser"] == name
    small_search(tmp_path / "cut", optimiser=name, trials=3)
    again = small_search(tmp_path / "cut", optimiser=name, trials=6, resume=True)
    assert table(again) == table(whole)
    with pytest.raises(ConfigError, match="the optimiser must be"):
        small_search(tmp_path / "cut", optimiser="random", resume=True)
    given = named_in(name, "optimiser")
    in_python = small_search(tmp_path / "class", optimiser=given, trials=6)
    assert table(in_python) == table(whole)
    assert optimiser_name(given()) == optimiser_name(given)
    with pytest.raises(ConfigError, match="must answer a value of the space for each parameter"):
        ask(f"{file}:Wrong", PROBLEM, [], seed=0)
    file.unlink()
    assert table(load_study(tmp_path / "whole")) == table(whole)  # its results are there
    page = tmp_path / "report.html"
    run("report", tmp_path / "whole", "--out", page)
    assert "optimiser.py:Mine" in page.read_text()


def test_the_command_line_takes_an_optimiser_of_ones_own(tmp_path, monkeypatch):
    import codesign

    def inline(workload, space, **settings):
        settings.pop("ray_address", None)
        return search(workload, small_space(workload), executor="inline", **settings)

    monkeypatch.setattr(codesign, "load_workload", lambda **_: small_workload())
    monkeypatch.setattr(codesign, "search", inline)
    file, out = tmp_path / "optimiser.py", tmp_path / "out"
    file.write_text(OPTIMISER)
    run("search", "--out", out, "--optimiser", f"{file}:Mine", "--trials", 2)
    assert f'optimiser = "{file}:Mine"' in (out / "study.toml").read_text()
    run("search", "--out", out, "--resume", "--trials", 3)
    assert len(load_study(out).trials) == 3
    told = run("search", "--out", tmp_path / "no", "--optimiser", f"{file}:Mien", code=2)
    assert f"search.optimiser '{file}:Mien' must exist" in told and "'Mine'" in told


def test_a_model_of_ones_own_is_found_in_the_same_way(tmp_path):
    with pytest.raises(models.ModelError, match=r"model file must exist, got 'none\.py'; check"):
        models.load("none.py:Net")


def test_layers_stay_dense_beside_a_policy(trace, tmp_path):
    perforated = ("--policy", "PerforationReuse", "--policy-set", "computed=0.5")
    design, out = ("--accelerator", "listed_16x16"), tmp_path / "report.json"
    dense = ("--layer", "second=dense", "--layer", "answers=dense")
    run("simulate", trace, *design, *perforated, *dense, "--json", out)
    layers = json.loads(out.read_text())["designs"]["reuse"]["layers"]
    left = {layer["layer"]: layer["remaining_ratio"] for layer in layers}
    assert left["first"] < 1 and left["second"] is left["answers"] is None
    told = run("simulate", trace, *design, *perforated, "--layer", "second=4,9", code=2)
    assert "--policy must stand without --layer" in told and "NAME=dense may stay" in told


def test_a_policy_that_no_text_sets_up_says_so(trace):
    told = run("simulate", trace, "--policy", "SkippedOutputs", code=2)
    assert "policy SkippedOutputs must be set up in Python" in told and "FILE.py:NAME" in told


def test_a_report_executes_the_file_of_its_designs_first(tmp_path):
    file = tmp_path / "design_of_report.py"
    file.write_text(
        "from accelerators import preset\n"
        f"open({str(tmp_path / 'executed')!r}, 'w').close()\n"
        "design = preset('dense_16x16')\n"
    )
    out = ("--out", tmp_path / "report.html")
    run("report", tmp_path / "nothing", *out, code=2)
    assert not (tmp_path / "executed").exists()
    run("report", tmp_path / "nothing", *out, "--accelerator", f"{file}:design", code=2)
    assert (tmp_path / "executed").exists()
