"""The rooms import each other in one direction only, and the light ones need no PyTorch."""

import ast
import functools
import re
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


ROOMS = [room for room in MAY_IMPORT if room != "studies"]
FILES = [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
# What holds numbers or makes them, and no HTML.
WITHOUT_PAGES = (
    *("simulator/analysis", "simulator/boards", "simulator/decisions", "simulator/kernels"),
    *("simulator/policies", "simulator/results", "simulator/running", "simulator/timing"),
    *("codesign/boards", "codesign/evaluation", "codesign/optimisers", "codesign/space"),
    "codesign/study",
)


@functools.cache
def imported_names(path: Path) -> set[str]:
    """Modules, and what may be modules, that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports anywhere."""
    return {name.split(".")[0] for name in imported_names(path)} & set(MAY_IMPORT)


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


@pytest.mark.parametrize("room", WITHOUT_PAGES)
def test_numbers_need_no_pages(room):
    files = [path for path in FILES if path.is_relative_to(room)]
    assert files
    for path in files:
        rooms = {".".join(name.split(".")[:2]) for name in imported_names(path)}
        assert not rooms & {"simulator.pages", "codesign.report", "jinja2", "markupsafe"}, path


def test_markup_stands_in_templates():
    # Plotly's own, in what a point says, are no page's: `<br>` and `<extra></extra>`.
    markup = re.compile(r"</(?!extra>)\w+>|<(?:a|div|figure|h\d|img|p|script|span|style|table)[ >]")
    for path in FILES:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not markup.search(node.value), f"{path}:{node.lineno}"


@pytest.mark.parametrize("package", sorted({str(path.parent) for path in FILES}))
def test_children_of_a_package_form_no_circle(package):
    import networkx as nx

    modules = {".".join(path.with_suffix("").parts): path for path in FILES}
    graph = nx.DiGraph()
    for path in FILES:
        if not path.is_relative_to(package) or path.name == "__init__.py":
            continue
        for name in imported_names(path) & set(modules):
            if modules[name].is_relative_to(package):
                ends = [each.relative_to(package).parts[0] for each in (path, modules[name])]
                graph.add_edges_from([ends] if ends[0] != ends[1] else [])
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
