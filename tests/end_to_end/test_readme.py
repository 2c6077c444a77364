"""What the README says can be pasted."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codesign import Objective
from codesign.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_python_runs_and_prints_a_verdict():
    code, _ = blocks("python")
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) == 10
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # Weights are trained on this machine, so only the form of the numbers is fixed.
    shape = re.sub(r"[+-]?\d+\.\d+", "#", blocks("text")[1].replace("\n", " ")).split(" here: ")[1]
    assert shape.strip() in re.sub(r"[+-]?\d+\.\d+", "#", done.stdout)


def test_the_objective_is_one():
    _, code = blocks("python")
    scope = {}
    exec(code, scope)
    assert isinstance(scope["Frames"], Objective) and scope["Frames"].maximise


@pytest.mark.parametrize("target", re.findall(r"`?make ([a-z-]+)", README))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


def commands() -> list[list[str]]:
    """Every `codesign` command of the README, without comments."""
    joined = "".join(blocks("console")).replace("\\\n", " ")
    lines = [line[2:].split("#")[0].split() for line in joined.splitlines()]
    return [line[1:] for line in lines if line[:1] == ["codesign"]]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_have_the_options_they_are_given(command):
    text = CliRunner().invoke(app, [command[0], "--help"], env={"COLUMNS": "200"}).output
    for word in command[1:]:
        if word.startswith("--"):
            assert word in text


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"[A-Z]{3,}_OUTPUT|TODO|FIXME", README)
