"""A sweep simulates what its settings say, once decided, and names what is wrong with them."""

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

import codesign.study.sweep
from accelerators import ConfigError, cost_table, preset
from codesign.cli import app as cli
from codesign.cli import terminal
from codesign.report.sweep_page import sweep_figure, write_sweep_html
from codesign.space.lookup import find_accelerator
from codesign.study.sweep import read_settings, sweep
from simulator import LshReuse, NoReuse, simulate
from simulator.pages.figures import area_by_part
from tests.small_search import small_workload
from tests.unit.test_cli import SCALE_SIM
from workloads import Gemm, WorkloadTrace

POLICY = LshReuse(hashes=6, length=9)


@pytest.fixture(scope="module")
def trace():
    return small_workload().trace


@pytest.fixture(scope="module")
def found(trace):
    base = preset("reuse_16x16")
    settings = read_settings(["array.rows=8,16", "front_end.lanes=1,0,2"], base)
    return sweep(trace, base, POLICY, settings)


def test_every_combination_is_simulated_or_has_a_reason(found, trace):
    assert [tuple(point.values.values()) for point in found.points] == [
        (8, 1), (8, 0), (8, 2), (16, 1), (16, 0), (16, 2),
    ]  # fmt: skip
    assert [point.name for point in found.skipped] == [
        "array.rows=8, front_end.lanes=0",
        "array.rows=16, front_end.lanes=0",
    ]
    assert "front_end.lanes must be an integer from 1 to 256" in found.skipped[0].reason
    alone = simulate(trace, preset("reuse_16x16"), POLICY)  # 16 rows and 1 lane
    numbers = found.points[3].numbers
    assert numbers["cycles_per_image"] == alone.reuse.cycles / trace.images
    assert numbers["speedup_equal_area"] == alone.speedup_equal_area
    assert numbers["energy_uj_per_image"] == alone.reuse.energy_uj_per_image


def test_reuse_is_decided_once(trace, monkeypatch):
    made = []

    def counted(*arguments, **options):
        made.append(arguments)
        return codesign.study.sweep.simulate.__globals__["decide"](*arguments, **options)

    monkeypatch.setattr(codesign.study.sweep, "decide", counted)
    base, told = preset("reuse_16x16"), []
    sweep(
        trace, base, POLICY, read_settings(["cache.ways=1,2,4"], base),
        on_point=lambda *done: told.append(done),
    )  # fmt: skip
    assert len(made) == 1
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_figure_has_a_line_for_each_value_of_the_second_field(found):
    lines = sweep_figure(found).data
    assert {line.name for line in lines} == {"front_end.lanes=1", "front_end.lanes=2"}
    assert len(lines) == 2 * 4  # speed, energy, cycles and area
    by_panel = [line for line in lines if line.name == "front_end.lanes=2"]
    speed = [
        p.numbers["speedup_equal_area"] for p in found.points if p.values["front_end.lanes"] == 2
    ]
    assert list(by_panel[0].y) == speed
    assert list(by_panel[0].x) == [8, 16]


def test_page_and_csv_hold_every_combination(found, tmp_path):
    page = write_sweep_html(found, tmp_path / "page.html", "codesign sweep x").read_text()
    assert "codesign sweep x" in page
    assert "2 combinations that no design can have" in page
    assert "hwcomponents_45nm, 45 nm: " in page
    assert found.verdict.split(":")[0][:40] in page
    with found.write_csv(tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["reason"] != "" for row in rows] == [False, True, False] * 2
    assert rows[1]["cycles_per_image"] == ""
    assert float(rows[0]["cycles_per_image"]) == found.points[0].numbers["cycles_per_image"]


def test_values_have_the_type_of_their_field():
    base = preset("reuse_16x16")
    settings = read_settings(
        [
            "clock_hz=5e8,1e9",
            "front_end.packing=true, no",
            "cache.replacement=lru,fifo",
            "dram.latency_cycles=0",
        ],
        base,
    )
    assert [setting.values for setting in settings] == [
        (5e8, 1e9), (True, False), ("lru", "fifo"), (0,),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "--set must name a field to vary, got none"),
        (["array.rows"], "--set must be FIELD=VALUE"),
        (["=3"], "--set must be FIELD=VALUE"),
        (["array.rows=8,,16"], "--set must be FIELD=VALUE"),
        (["array.row=8"], "got 'array.row'; use 'array.rows'"),
        (["array=8"], "got 'array'; the fields are array.rows, array.columns"),
        (["nothing.at_all=8"], "got 'nothing.at_all'; the fields are name, array.rows"),
        (["array.rows=eight"], "--set array.rows must be given whole numbers, got 'eight'"),
        (["array.rows=8.5"], "--set array.rows must be given whole numbers, got '8.5'"),
        (["clock_hz=fast"], "--set clock_hz must be given numbers, got 'fast'"),
        (["front_end.packing=1"], "--set front_end.packing must be given true or false"),
        (["array.rows=8,8"], "must have each value once"),
        (["array.rows=8", "array.rows=16"], "must name a field once"),
    ],
)
def test_wrong_settings_are_named(texts, message):
    with pytest.raises(ConfigError) as caught:
        read_settings(texts, preset("reuse_16x16"))
    assert message in str(caught.value)


def test_a_dense_design_has_no_reuse_units_to_vary():
    with pytest.raises(ConfigError, match=r"got 'cache.ways', but it has no cache"):
        read_settings(["cache.ways=1"], preset("dense_16x16"))


@pytest.mark.parametrize("later", ["", "from __future__ import annotations\n"])
def test_the_unit_of_ones_own_in_the_docs_is_swept_drawn_and_sent_to_workers(tmp_path, later):
    from ray import cloudpickle

    page = (Path(__file__).parents[2] / "docs" / "own_unit.md").read_text()
    source = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "my_sorter.py").write_text(later + source)
    design = find_accelerator(f"{tmp_path}/my_sorter.py:sorting")
    trace = WorkloadTrace.from_gemms([("fc", Gemm(m=8, n=8, k=8))])
    found = sweep(trace, design, NoReuse(), read_settings(["sorter.lanes=0,1,2"], design))
    assert [point.reason is None for point in found.points] == [False, True, True]
    assert "Sorting.sorter.lanes must be an integer from 1" in found.points[0].reason
    one, two = (point.numbers["area_mm2"] for point in found.simulated)
    table = cost_table(design.technology)
    assert two - one == pytest.approx(table.area_mm2("comparator", bits=8))
    report = simulate(trace, design, NoReuse())
    drawn = {trace.name: trace.x for trace in area_by_part({"it": report.reuse.to_dict()}).data}
    assert drawn["sorter"] == (report.reuse.area_by_part_mm2["sorter"],)
    assert "from my_sorter import (\n    Sorter,\n    Sorting,\n)" in design.to_python()
    assert cloudpickle.loads(cloudpickle.dumps(design)) == design


def test_sweeps_without_a_valid_combination_or_with_too_many_are_refused():
    trace = WorkloadTrace.from_gemms([("fc", Gemm(m=8, n=8, k=8))])
    base = preset("dense_16x16")
    with pytest.raises(ConfigError, match=r"got none of 1; the first, array.rows=0: .*got 0"):
        sweep(trace, base, NoReuse(), read_settings(["array.rows=0"], base))
    many = ",".join(map(str, range(1, 102)))
    with pytest.raises(ConfigError, match="at most 10000 combinations, got 10201"):
        sweep(
            trace, base, NoReuse(), read_settings([f"array.rows={many}", f"clock_hz={many}"], base)
        )


def test_command_sweeps_scale_sim_files_quietly_in_a_pipe(tmp_path):
    files = [str(SCALE_SIM / name) for name in ("a32_ws.cfg", "alexnet.csv")]
    page, table = tmp_path / "new" / "page.html", tmp_path / "new" / "out.csv"
    done = CliRunner().invoke(
        cli.app,
        ["sweep", "--scale-sim", *files, "--set", "array.rows=16,32,5000", "--html", str(page),
         "--csv", str(table)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Fewest cycles at array.rows=32" in done.stdout
    assert "equal area" not in done.stdout
    assert done.stderr.splitlines() == [
        "skipped array.rows=5000: Accelerator.array.rows must be an integer from 1 to 4096, "
        "got 5000; use 4096",
        f"wrote {table}",
        f"wrote {page}",
    ]
    wrong = CliRunner().invoke(cli.app, ["sweep", "--scale-sim", *files, "--set", "array.rws=1"])
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("Error: --set must name a field")


def test_the_cost_table_can_be_swept_and_each_row_names_its_own(tmp_path):
    files = [str(SCALE_SIM / name) for name in ("a32_ws.cfg", "alexnet.csv")]
    page, table = tmp_path / "page.html", tmp_path / "out.csv"
    command = ["sweep", "--scale-sim", *files]
    tables = ["hwcomponents_45nm", "horowitz_2014_45nm"]
    varied = ["--set", f"technology={','.join(tables)}"]
    done = CliRunner().invoke(
        cli.app, [*command, *varied, "--html", str(page), "--csv", str(table)]
    )
    assert done.exit_code == 0, done.output
    assert (
        "Costs: hwcomponents_45nm (45 nm), horowitz_2014_45nm (45 nm); DRAM focus_2026 "
        "(100 pJ per byte)."
    ) in done.stdout
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["cost_table"] for row in rows] == tables
    # Horowitz' multiply-accumulate takes 0.3 pJ, the other's 1.15 pJ
    assert float(rows[1]["energy_uj_per_image"]) < float(rows[0]["energy_uj_per_image"])
    assert rows[0]["cycles_per_image"] == rows[1]["cycles_per_image"]
    assert "speedup_equal_area" not in rows[0]  # a dense design has nothing to compare
    for each in tables:
        assert f"{each}, 45 nm: " in page.read_text()
    kinds = CliRunner().invoke(
        cli.app,
        [*command, "--set", "dram.kind=focus_2026,horowitz_2014_low", "--html", str(page)],
    )
    drams = "focus_2026 (100 pJ per byte), horowitz_2014_low (162.5 pJ per byte)"
    assert f"Costs: hwcomponents_45nm (45 nm); DRAM {drams}." in kinds.stdout
    assert drams in page.read_text()
    one = CliRunner().invoke(
        cli.app,
        [*command, "--set", "array.rows=8,16", "--technology", tables[1], "--csv", str(table)],
    )
    assert one.exit_code == 0, one.output
    with table.open() as file:
        assert {row["cost_table"] for row in csv.DictReader(file)} == {tables[1]}
    both = CliRunner().invoke(cli.app, [*command, *varied, "--technology", tables[1]])
    assert both.exit_code == 2
    assert "--technology must not be given with --set technology=..." in both.stderr


def test_progress_is_for_terminals_only(monkeypatch):
    with terminal.point_progress("sweeping") as on_point:
        assert on_point is None
    monkeypatch.setenv("FORCE_COLOR", "1")
    with terminal.point_progress("sweeping") as on_point:
        on_point(1, 2)
