"""Cost tables: exact on their rows, a measured error between them, monotone, and the user's own."""

import csv
import statistics
from importlib import resources
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelerators import BUILT_IN_TABLES, ConfigError, cost_table, dram_energy_pj_per_byte

SIZES_KIB = [2**n for n in range(11)]
WIDTHS_BITS = [32, 64, 128, 256]
QUANTITIES = ("read", "write", "area", "leakage")


def table_text(name: str) -> str:
    return (resources.files("accelerators") / "data" / f"{name}.csv").read_text(encoding="utf-8")


def sram(table, quantity: str, size_bytes: float, width_bits: float) -> float:
    size = {"size_bytes": size_bytes, "width_bits": width_bits}
    if quantity == "area":
        return table.area_mm2("sram", **size)
    if quantity == "leakage":
        return table.leakage_mw("sram", **size)
    return table.energy_pj("sram", quantity, **size)


@pytest.fixture(params=BUILT_IN_TABLES)
def name(request):
    return request.param


def test_every_row_is_given_back(name):
    table = cost_table(name)
    rows = list(csv.DictReader(table_text(name).splitlines()))
    assert len(rows) == (96 if name == "horowitz_2014_45nm" else 102)
    published = {
        "AladdinIntMAC": "int_mac",
        "AladdinMultiplier": "int_multiplier",
        "AladdinAdder": "int_adder",
        "AladdinRegister": "register",
        "AladdinComparator": "comparator",
        "SRAM": "sram",
    }
    for row in rows:
        numbers = dict(pair.split("=") for pair in row["parameter"].split(";"))
        component = published.get(row["component"], row["component"])
        if component == "sram":
            size = {
                "size_bytes": int(numbers["size_kib"]) * 1024,
                "width_bits": int(numbers["width_bits"]),
            }
        elif component == "int_mac":
            size = {
                "bits": int(numbers["multiplier_width"]),
                "adder_bits": int(numbers["adder_width"]),
            }
        else:
            size = {"bits": int(numbers["width"])}
        action = "mac" if row["action"] == "compute" else row["action"]
        expected = [float(row[key]) for key in ("energy_pj", "area_mm2", "leakage_mw")]
        found = [
            table.energy_pj(component, action, **size),
            table.area_mm2(component, **size),
            table.leakage_mw(component, **size),
        ]
        assert found == pytest.approx(expected, rel=1e-12), row
        assert float(row["tech_node_nm"]) == table.node_nm
        assert row["source"] in table.source


# Largest relative error when a whole capacity (or width) is left out and predicted from its
# neighbours, over the three nodes, as measured on these tables and rounded up to a percent. The
# neighbours are then twice as far apart as the rows that real look-ups fall between.
MEASURED_BOUNDS = {
    ("size_kib", "read"): 0.28,
    ("size_kib", "write"): 0.19,
    ("size_kib", "area"): 0.23,
    ("size_kib", "leakage"): 0.11,
    ("width_bits", "read"): 0.43,
    ("width_bits", "write"): 0.19,
    ("width_bits", "area"): 0.22,
    ("width_bits", "leakage"): 0.10,
}
MEASURED_MEDIAN = 0.10


@pytest.mark.parametrize("axis", ["size_kib", "width_bits"])
def test_error_on_rows_left_out(name, axis, tmp_path):
    full = cost_table(name)
    lines = table_text(name).splitlines()
    errors: dict[str, list[float]] = {quantity: [] for quantity in QUANTITIES}
    for value in (SIZES_KIB if axis == "size_kib" else WIDTHS_BITS)[1:-1]:
        path = tmp_path / f"without_{axis}_{value}.csv"
        kept = [
            line for line in lines if f"{axis}={value}" not in line.replace(",", ";").split(";")
        ]
        assert len(kept) == len(lines) - 2 * (4 if axis == "size_kib" else 11)
        path.write_text("\n".join(kept), encoding="utf-8")
        partial = cost_table(path)
        for other in WIDTHS_BITS if axis == "size_kib" else SIZES_KIB:
            size, width = (value, other) if axis == "size_kib" else (other, value)
            for quantity in QUANTITIES:
                predicted = sram(partial, quantity, size * 1024, width)
                errors[quantity].append(predicted / sram(full, quantity, size * 1024, width) - 1)
    for quantity, found in errors.items():
        largest = max(abs(error) for error in found)
        median = statistics.median(abs(error) for error in found)
        print(
            f"{name}, {axis} left out, {quantity}: {len(found)} rows, median {median:.1%}, "
            f"from {min(found):+.1%} to {max(found):+.1%}"
        )
        assert largest <= MEASURED_BOUNDS[axis, quantity]
        assert median <= MEASURED_MEDIAN


@pytest.mark.parametrize("width_bits", [8, 32, 50, 64, 200, 256, 272, 2048])
@pytest.mark.parametrize("quantity", ["read", "write", "area"])
def test_more_capacity_never_costs_less(name, quantity, width_bits):
    table = cost_table(name)
    values = [sram(table, quantity, 64 * 1.09**step, width_bits) for step in range(200)]  # 1.8 GiB
    for smaller, larger in pairwise(values):
        assert larger >= smaller * (1 - 1e-12)


@given(
    st.sampled_from(BUILT_IN_TABLES),
    st.sampled_from(["int_multiplier", "int_adder", "register", "comparator"]),
    st.floats(1, 256),
    st.floats(1, 4),
)
def test_more_bits_never_cost_less(name, component, bits, factor):
    table = cost_table(name)
    wider, narrower = (table.area_mm2(component, bits=b) for b in (bits * factor, bits))
    assert wider >= narrower * (1 - 1e-12)


def test_arithmetic_beyond_the_rows():
    table = cost_table("hwcomponents_45nm")
    # adder: 0.1208 pJ at 16, 0.2417 pJ at 32 bits, exponent log2(0.2417 / 0.1208) = 1.0006
    assert table.energy_pj("int_adder", "add", bits=64) == pytest.approx(2 * 0.2417, rel=1e-3)
    assert table.energy_pj("int_adder", "add", bits=24) == pytest.approx(1.5 * 0.1208, rel=1e-3)
    assert table.energy_pj("int_adder", "add", bits=4) == pytest.approx(0.0604 / 2, rel=1e-3)
    # multiplier: 0.9120, 3.6480, 14.5919 pJ at 8, 16, 32 bits: the square of the bits
    assert table.energy_pj("int_multiplier", "multiply", bits=4) == pytest.approx(0.9120 / 4, 1e-3)
    assert table.area_mm2("int_multiplier", bits=64) == pytest.approx(4 * 0.00928077, rel=1e-3)
    # register: one row of 8 bits, in proportion
    assert table.area_mm2("register", bits=48) == pytest.approx(6 * 6.992e-05, rel=1e-12)
    assert table.leakage_mw("register", bits=48) == 0.0  # as published: not modelled


def test_a_mac_without_a_row_is_its_multiplier_plus_its_adder():
    for name in BUILT_IN_TABLES:
        table = cost_table(name)
        for adder_bits in (16, 32):  # the rows themselves keep this, to the last digit printed
            size = {"bits": 8, "adder_bits": adder_bits}
            parts = table.area_mm2("int_multiplier", bits=8) + table.area_mm2(
                "int_adder", bits=adder_bits
            )
            assert table.area_mm2("int_mac", **size) == pytest.approx(parts, rel=1e-5)
            assert table.energy_pj("int_mac", "mac", **size) == pytest.approx(
                table.energy_pj("int_multiplier", "multiply", bits=8)
                + table.energy_pj("int_adder", "add", bits=adder_bits),
                abs=2e-4,  # four digits after the point
            )
        # no row for 16 bits with a 48-bit adder
        assert table.leakage_mw("int_mac", bits=16, adder_bits=48) == table.leakage_mw(
            "int_multiplier", bits=16
        ) + table.leakage_mw("int_adder", bits=48)


def test_sram_below_and_beyond_the_rows():
    table = cost_table("hwcomponents_45nm")
    kib = 1024

    def at(quantity, size_bytes, width_bits):
        return sram(table, quantity, size_bytes, width_bits)

    # a quarter of the smallest: its energy, a quarter of its area and leakage
    assert at("read", 256, 64) == pytest.approx(1.6697)
    assert at("area", 256, 64) == pytest.approx(0.0035993 / 4)
    assert at("leakage", 256, 64) == pytest.approx(3.5388e-05 / 4)
    # narrower than the narrowest: as 32 bits
    assert at("read", 4 * kib, 8) == at("read", 4 * kib, 32) == pytest.approx(2.8617)
    # 2048 bits: eight macros of 256 bits and an eighth of the capacity, all opened
    for quantity in QUANTITIES:
        assert at(quantity, 64 * kib, 2048) == pytest.approx(8 * at(quantity, 8 * kib, 256))
    # 2.5 MiB: two full macros and a half, one of them opened
    assert at("area", 2560 * kib, 64) == pytest.approx(
        2 * at("area", 1024 * kib, 64) + at("area", 512 * kib, 64)
    )
    assert at("write", 2560 * kib, 64) == at("write", 1024 * kib, 64)


def test_sources_are_named():
    assert [cost_table(name).node_nm for name in BUILT_IN_TABLES] == [45, 28, 22, 45]
    assert "CACTI 7" in cost_table("hwcomponents_45nm").source
    assert cost_table("hwcomponents_45nm") is cost_table("hwcomponents_45nm")


def test_horowitz_prices_arithmetic_and_leaves_the_rest_to_the_other_source():
    table, other = cost_table("horowitz_2014_45nm"), cost_table("hwcomponents_45nm")
    # ISSCC 2014, 45 nm at 0.9 V: int multiply 0.2 and 3.1 pJ, int add 0.03 and 0.1 pJ, at 8 and 32
    # bits; a multiply-accumulate is their sum
    for bits, multiply_pj, add_pj in ((8, 0.2, 0.03), (32, 3.1, 0.1)):
        assert table.energy_pj("int_multiplier", "multiply", bits=bits) == multiply_pj
        assert table.energy_pj("int_adder", "add", bits=bits) == add_pj
    assert table.energy_pj("int_mac", "mac", bits=8) == pytest.approx(0.2 + 0.1)
    # between them a power law: 16 is the geometric mean of 8 and 32
    middle = (0.2 * 3.1) ** 0.5
    assert table.energy_pj("int_multiplier", "multiply", bits=16) == pytest.approx(middle)
    # he gives no area, no leakage, no register, no comparator and no plain SRAM
    for bits in (8, 16, 32):
        assert table.area_mm2("int_mac", bits=bits) == pytest.approx(
            other.area_mm2("int_mac", bits=bits), rel=1e-5
        )
        assert table.leakage_mw("int_adder", bits=bits) == pytest.approx(
            other.leakage_mw("int_adder", bits=bits), rel=1e-4
        )
        assert table.energy_pj("register", "read", bits=bits) == other.energy_pj(
            "register", "read", bits=bits
        )
    for quantity in QUANTITIES:
        assert sram(table, quantity, 5000, 100) == sram(other, quantity, 5000, 100)
    rows = list(csv.DictReader(table_text("horowitz_2014_45nm").splitlines()))
    of_horowitz = {row["component"] for row in rows if "Horowitz" in row["source"]}
    assert of_horowitz == {"int_multiplier", "int_adder"}
    assert all("area and leakage: hwcomponents" in row["source"] for row in rows[:4])
    assert "Horowitz" in table.source
    assert "CACTI 7" in table.source


def test_dram_energy():
    # ISSCC 2014: 1300 to 2600 pJ for 64 bits
    assert dram_energy_pj_per_byte("focus_2026") == 100
    assert dram_energy_pj_per_byte("horowitz_2014_low") == 1300 / 8
    assert dram_energy_pj_per_byte("horowitz_2014_high") == 2600 / 8
    for odd in ("lpddr", None, 3, ["focus_2026"]):
        with pytest.raises(ConfigError, match=r"^Dram.kind must be one of 'focus_2026', "):
            dram_energy_pj_per_byte(odd)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: t.area_mm2("adder", bits=8),
            "CostTable[hwcomponents_45nm] component must be one of 'int_multiplier', 'int_adder', "
            "'int_mac', 'register', 'comparator', 'sram', got 'adder'; use 'int_adder'",
        ),
        (
            lambda t: t.energy_pj("sram", "fetch", size_bytes=1, width_bits=1),
            "CostTable[hwcomponents_45nm].energy_pj action must be one of 'read', 'write' for "
            "sram, got 'fetch'; use one of these",
        ),
        (
            lambda t: t.energy_pj("int_adder", "area", bits=8),
            "CostTable[hwcomponents_45nm].energy_pj action must be 'add' for int_adder, "
            "got 'area'; use 'add'",
        ),
        (
            lambda t: t.leakage_mw("int_adder"),
            "CostTable[hwcomponents_45nm].int_adder.bits must be a number above 0 and at most "
            "1.09951e+12, got None; give bits=...",
        ),
        (
            lambda t: t.area_mm2("sram", size_bytes=-1, width_bits=float("nan")),
            "CostTable[hwcomponents_45nm].sram.size_bytes must be a number above 0 and at most "
            "1.09951e+12, got -1; give size_bytes=...\n"
            "CostTable[hwcomponents_45nm].sram.width_bits must be a number above 0 and at most "
            "1.09951e+12, got nan; give width_bits=...",
        ),
        (
            lambda t: t.area_mm2("int_adder", bits=8, adder_bits=32),
            "CostTable[hwcomponents_45nm].int_adder must be sized by 'bits', got adder_bits; "
            "leave it out",
        ),
    ],
)
def test_wrong_look_ups(call, message):
    with pytest.raises(ConfigError) as caught:
        call(cost_table("hwcomponents_45nm"))
    assert str(caught.value) == message


class TestOwnTable:
    """The user's CSV file."""

    @pytest.fixture
    def write(self, tmp_path):
        def write(text: str, name: str = "mine.csv"):
            path = tmp_path / name
            path.write_text(text, encoding="utf-8")
            return path

        return write

    @pytest.fixture
    def lines(self):
        return table_text("hwcomponents_45nm").splitlines()

    def violations(self, path) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            cost_table(path)
        found = list(caught.value.violations)
        assert all(str(path) in message for message in found)
        return [message.replace(str(path), "mine.csv") for message in found]

    def test_is_read_and_read_again_after_a_change(self, write, lines):
        path = write("\n".join(lines))
        first = cost_table(path)
        assert cost_table(str(path)) is first
        assert first.name == str(path)
        assert first.area_mm2("int_adder", bits=8) == 0.000101577
        write("\n".join(lines).replace("0.000101577", "0.0002015770"))
        assert cost_table(path).area_mm2("int_adder", bits=8) == 0.000201577

    def test_plain_names_order_and_spare_columns_do_not_matter(self, write, lines):
        rows = list(csv.DictReader(lines))
        header = ["note", *reversed(list(rows[0]))]
        text = ",".join(header) + "\n"
        for row in reversed(rows):
            row["component"] = row["component"].replace("AladdinAdder", "int_adder")
            text += ",".join({"note": "x", **row}[key] for key in header) + "\r\n"
        mine, built_in = cost_table(write("\ufeff" + text)), cost_table("hwcomponents_45nm")
        for quantity in QUANTITIES:
            assert sram(mine, quantity, 5000, 100) == sram(built_in, quantity, 5000, 100)

    def test_mac_rows_may_be_left_out(self, write, lines):
        table = cost_table(write("\n".join(line for line in lines if "MAC" not in line)))
        assert table.energy_pj("int_mac", "mac", bits=8) == pytest.approx(1.1537)

    def test_missing_file(self, tmp_path):
        assert self.violations(tmp_path / "absent.csv") == [
            f"CostTable[{tmp_path / 'absent.csv'}] must be a readable file of UTF-8 text, "
            "got: No such file or directory; check the path and the file".replace(
                str(tmp_path / "absent.csv"), "mine.csv"
            )
        ]

    def test_missing_columns(self, write, lines):
        path = write("\n".join([lines[0].replace("area_mm2", "area"), *lines[1:]]))
        assert self.violations(path) == [
            "CostTable[mine.csv] must have the column area_mm2, got component, parameter, "
            "tech_node_nm, action, energy_pj, area, leakage_mw, source; add it, the columns are "
            "component,parameter,tech_node_nm,action,energy_pj,area_mm2,leakage_mw,source"
        ]

    def test_every_broken_cell_is_named(self, write, lines):
        lines[3] = lines[3].replace("1.0328", "about 1")
        lines[5] = lines[5].replace("AladdinMultiplier", "Multiplier")
        lines[8] = lines[8].replace(",add,", ",ad,")
        lines[9] = lines[9].replace("width=16", "width=0")
        lines[10] = lines[10].replace("0.0027619", "-1")
        lines[12] = lines[12].replace("6.992e-05", "7e-05")
        lines[13] += ",more"
        found = self.violations(write("\n".join(lines)))
        starts = [
            "CostTable[mine.csv] line 4 energy_pj must be a number above 0 and at most 1e+12, "
            "got 'about 1'; give the value in the unit of the column's name",
            "CostTable[mine.csv] line 6 component must be one of 'int_multiplier', ",
            "CostTable[mine.csv] line 9 action must be 'add' for int_adder, got 'ad'; use 'add'",
            "CostTable[mine.csv] line 10 parameter must be width=<number> for int_adder, "
            "got 'width=0'; write it so, numbers above 0",
            "CostTable[mine.csv] line 11 leakage_mw must be a number of 0 or more and at most "
            "1e+12, got '-1'; ",
            "CostTable[mine.csv] line 13 area_mm2 must be that of the earlier row of register "
            "width=8, 6.992e-05, got 7e-05; keep one value",
            "CostTable[mine.csv] line 14 must have 8 columns, got more; quote a text that holds a "
            "comma",
        ]
        assert len(found) == len(starts)
        for message, start in zip(found, starts, strict=True):
            assert message.startswith(start)

    def test_an_unknown_area_is_no_zero_and_no_empty_cell(self, write, lines):
        lines[8] = lines[8].replace("0.000101577", "")
        lines[9] = lines[9].replace("0.000203154", "0")
        start = "area_mm2 must be a number above 0 and at most 1e+12, got "
        assert self.violations(write("\n".join(lines))) == [
            f"CostTable[mine.csv] line 9 {start}''; take what your source lacks from another, and "
            "name both in the column source",
            f"CostTable[mine.csv] line 10 {start}'0'; give the value in the unit of the column's "
            "name",
        ]

    def test_incomplete_tables(self, write, lines):
        left_out = ("Comparator", "AladdinRegister,width=8,45,write", "size_kib=4;width_bits=64,")
        kept = [line for line in lines if not any(text in line for text in left_out)]
        assert self.violations(write("\n".join(kept))) == [
            "CostTable[mine.csv] must have rows for register write at width=8, got none; add them",
            "CostTable[mine.csv] must have rows for comparator compare, got none; add them",
            "CostTable[mine.csv] must have sram rows at every size_kib and width_bits, got none at "
            "size_kib=4;width_bits=64 and 0 more; add them",
        ]

    def test_two_nodes_in_one_file(self, write, lines):
        text = "\n".join([*lines, *table_text("hwcomponents_28nm").splitlines()[1:]])
        assert any("earlier row" in message for message in self.violations(write(text)))
        lines[-1] = lines[-1].replace(",45,", ",28,")
        assert self.violations(write("\n".join(lines))) == [
            "CostTable[mine.csv] column tech_node_nm must name one technology node, got 28, 45; "
            "keep one node per file"
        ]

    def test_a_thousand_broken_rows_are_summed_up(self, write, lines):
        found = self.violations(write("\n".join([lines[0], *["a,b,c,d,e,f,g,h"] * 1000])))
        assert len(found) == 21
        assert found[-1] == "CostTable[mine.csv] breaks 4980 more rules; mend these first"

    @pytest.mark.parametrize("text", ["", "\n\n", "component", '"', "\0", '"a\n,"b"c'])
    def test_no_table_at_all(self, write, text):
        assert self.violations(write(text))

    def test_bytes_that_are_no_text(self, tmp_path):
        path = tmp_path / "mine.csv"
        path.write_bytes(b"\xff\xfe\x00\xd8")
        assert "readable file of UTF-8 text" in self.violations(path)[0]
        directory = tmp_path / "folder.csv"
        directory.mkdir()
        assert "Is a directory" in self.violations(directory)[0]

    @pytest.mark.parametrize(
        "odd", ["hwcomponents_22", "table.txt", "", 45, None, b"x.csv", "\0.csv"]
    )
    def test_no_name_and_no_path(self, odd):
        with pytest.raises(ConfigError, match=r"^CostTable"):
            cost_table(odd)

    @given(st.text(max_size=200))
    def test_any_text_is_a_config_error(self, text):
        from accelerators.cost_rows import read_cost_rows

        with pytest.raises(ConfigError):
            read_cost_rows(text, "CostTable[mine.csv]")
