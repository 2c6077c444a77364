"""The rooms import each other in one direction only, and the light ones need no PyTorch."""

import ast
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "accelerators": set(),
    "workloads": set(),
    "simulator": {"accelerators", "workloads"},
    "codesign": {"accelerators", "workloads", "simulator"},
    "studies": {"accelerators", "workloads", "simulator", "codesign"},
}


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
        found |= {name.split(".")[0] for name in names}
    return found & set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_in_one_direction(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files or room == "studies"
    for path in files:
        wrong = imported_rooms(path) - MAY_IMPORT[room] - {room}
        assert not wrong, f"{path.relative_to(ROOT)} must not import {wrong}"


def test_modules_form_no_circle():
    import networkx as nx

    graph = nx.DiGraph()
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for room in MAY_IMPORT
        for path in (ROOT / room).rglob("*.py")
    }
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                graph.add_edge(name, node.module)
    circles = list(nx.simple_cycles(graph))
    assert not circles, circles


def test_description_and_timing_need_no_pytorch():
    script = """
import sys
sys.modules["torch"] = None  # importing it raises
from accelerators import preset
from simulator import simulate
from workloads import Gemm, WorkloadTrace
trace = WorkloadTrace.from_gemms([("fc", Gemm(m=64, n=32, k=48))])
print(simulate(trace, preset("dense_16x16")).dense.cycles)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_every_package_is_listed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for room in ("accelerators", "workloads", "simulator", "codesign")
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert found <= listed
    for package in listed:
        assert (ROOT / package.replace(".", "/")).is_dir(), package


def test_every_dependency_has_a_bound_and_a_reason():
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        assert ">=" in requirement, f"{requirement} has no lower bound"
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        assert "#" in line, f"{requirement} has no reason"
