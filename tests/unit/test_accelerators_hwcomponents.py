"""Cost tables from HWComponents: units, rows that our reader takes, and clear errors without it."""

import csv
import importlib.util
import io
from dataclasses import dataclass
from importlib import resources

import pytest

from accelerators import ConfigError, cost_table
from accelerators.cost_rows import COLUMNS, read_cost_rows
from accelerators.hwcomponents import main, rows, table_text

is_installed = importlib.util.find_spec("hwcomponents") is not None


@dataclass
class Cost:
    energy: float


class Model:
    """A component in HWComponents' units: 2 pJ, 3 mm2 and 4 mW for each of its bits."""

    def __init__(self, bits: float) -> None:
        self.area, self.leak_power, self._energy = 3e-6 * bits, 4e-3 * bits, 2e-12 * bits

    def __getattr__(self, action: str):
        return lambda: Cost(self._energy)


def made_by_bits(component, *, tech_node, **sizes):
    assert tech_node == 32e-9
    return Model(sum(sizes.values()))


def test_rows_are_in_the_columns_units():
    by_key = {(r["component"], r["parameter"], r["action"]): r for r in rows(32, "s", made_by_bits)}
    assert len(by_key) == 100
    adder = by_key["AladdinAdder", "width=16", "add"]
    assert adder == {
        "component": "AladdinAdder",
        "parameter": "width=16",
        "tech_node_nm": "32",
        "action": "add",
        "energy_pj": "32",
        "area_mm2": "48",
        "leakage_mw": "64",
        "source": "s",
    }
    mac = by_key["AladdinIntMAC", "adder_width=32;multiplier_width=8", "mac"]
    assert mac["energy_pj"] == "80"  # 2 pJ x (32 + 8)
    memory = by_key["SRAM", "size_kib=4;width_bits=64", "write"]
    assert float(memory["area_mm2"]) == pytest.approx(3 * (4 * 1024 * 8 + 64), rel=1e-5)


def test_rows_are_those_of_the_tables_that_ship():
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS)
    writer.writeheader()
    writer.writerows(rows(32, "s", made_by_bits))
    assert read_cost_rows(text.getvalue(), "made").node_nm == 32
    shipped = (resources.files("accelerators") / "data" / "hwcomponents_22nm.csv").read_text()
    keys = ("component", "parameter", "action")

    def of(table: str) -> set[tuple[str, ...]]:
        found = csv.DictReader(table.splitlines())
        return {tuple(row[key] for key in keys) for row in found if row["action"] != "compute"}

    assert of(text.getvalue()) == of(shipped)


@pytest.mark.slow  # CACTI runs for each of 44 memories
@pytest.mark.skipif(not is_installed, reason="needs the extra hwcomponents, for Python 3.12")
def test_the_package_gives_what_ships(tmp_path):
    path = tmp_path / "made.csv"
    assert main([str(path), "--node-nm", "45"]) == 0
    made, shipped = cost_table(path), cost_table("hwcomponents_45nm")
    assert made.area_mm2("int_mac", bits=8) == pytest.approx(
        shipped.area_mm2("int_mac", bits=8), rel=1e-5
    )
    size = {"size_bytes": 64 * 1024, "width_bits": 128}
    assert made.energy_pj("sram", "read", **size) == pytest.approx(
        shipped.energy_pj("sram", "read", **size), rel=1e-4
    )


@pytest.mark.skipif(is_installed, reason="HWComponents is installed")
def test_without_the_package_the_error_says_how_to_get_it(tmp_path, capsys):
    path = tmp_path / "made.csv"
    assert main([str(path), "--node-nm", "45"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("Error: HWComponents must be installed to make a cost table, got Python")
    assert "with Python 3.12 or newer, run: pip install hwcomponents hwcomponents-cacti" in told
    assert not path.exists()


@pytest.mark.parametrize("node_nm", [0, -45, 6.9, 181, float("nan"), float("inf")])
def test_nodes_out_of_range_are_refused(node_nm):
    with pytest.raises(ConfigError, match=r"--node-nm must be 7 to 180, got .*nanometres"):
        table_text(node_nm)


def test_a_file_that_no_design_could_name_is_refused(tmp_path, capsys):
    assert main([str(tmp_path / "made.txt"), "--node-nm", "45"]) == 2
    assert "OUT must end in .csv, got" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
