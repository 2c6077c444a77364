"""Every unit keeps the suite that is shipped for units of one's own."""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from accelerators import (
    PARTS,
    Accelerator,
    AddressList,
    CentroidCache,
    ChangeDetector,
    ConfigError,
    DifferenceUnit,
    FeatureCache,
    FrameDifferencer,
    IndependentLanes,
    LeaderTable,
    LshFrontEnd,
    MotionEstimator,
    NeighbourMatcher,
    RangeTable,
    Reconstructor,
    ResultAdder,
    ResultCache,
    SramBuffer,
    SumPredictor,
    SystolicArray,
    Unit,
    Warper,
    WeightTables,
    area_by_part,
    cost_table,
    energy_per_action,
    leakage_by_part,
    preset,
)
from accelerators.rules import integer, part
from accelerators.testing import UnitSuite
from accelerators.units import Item

DENSE, REUSE = preset("dense_16x16"), preset("reuse_16x16")


def dense_with(**units):
    return dataclasses.replace(DENSE, **units)


class TestArray(UnitSuite):
    design, part = DENSE, "array"
    larger = (
        SystolicArray(rows=17, columns=16),
        SystolicArray(rows=16, columns=32),
        SystolicArray(rows=16, columns=16, fold_timing="overlapped"),
    )


class TestActivationBuffer(UnitSuite):
    design, part = DENSE, "activation_buffer"
    larger = (SramBuffer(capacity_bytes=2**20), SramBuffer(capacity_bytes=2**20, ports=2))


class TestWeightBuffer(TestActivationBuffer):
    part = "weight_buffer"


class TestOutputBuffer(TestActivationBuffer):
    part = "output_buffer"


class TestDram(UnitSuite):
    design, part, larger = DENSE, "dram", ()


class TestFrontEnd(UnitSuite):
    design, part = dense_with(front_end=LshFrontEnd(max_hashes=8, max_length=8)), "front_end"
    larger = (
        LshFrontEnd(max_hashes=9, max_length=8),
        LshFrontEnd(max_hashes=8, max_length=10),
        LshFrontEnd(max_hashes=8, max_length=8, lanes=2),
        LshFrontEnd(max_hashes=8, max_length=8, projection="int8"),
    )


class TestCache(UnitSuite):
    design, part = REUSE, "cache"
    larger = (
        CentroidCache(entries=4096, ways=8),
        CentroidCache(entries=1024, ways=16),
        CentroidCache(entries=1024, ways=8, banks=2),
    )


class TestCentroidBuffer(UnitSuite):
    design, part = dense_with(centroid_buffer=SramBuffer(capacity_bytes=4096)), "centroid_buffer"
    larger = (SramBuffer(capacity_bytes=8192), SramBuffer(capacity_bytes=4096, ports=2))


class TestReconstructor(UnitSuite):
    design, part = dense_with(reconstructor=Reconstructor()), "reconstructor"
    larger = (Reconstructor(ports=2), Reconstructor(width=65))


class TestDifferenceUnit(UnitSuite):
    design, part = dense_with(difference_unit=DifferenceUnit(quantises=False)), "difference_unit"
    larger = (DifferenceUnit(), DifferenceUnit(lanes=65, quantises=False))


class TestResultAdder(UnitSuite):
    design, part = dense_with(result_adder=ResultAdder()), "result_adder"
    larger = (ResultAdder(width=65),)


class TestStateBuffer(UnitSuite):
    design, part = dense_with(state_buffer=SramBuffer(capacity_bytes=4096)), "state_buffer"
    larger = (SramBuffer(capacity_bytes=8192), SramBuffer(capacity_bytes=4096, ports=2))


class TestAddressList(UnitSuite):
    design, part = dense_with(address_list=AddressList(entries=4096)), "address_list"
    larger = (
        AddressList(entries=8192),
        AddressList(entries=4096, address_bits=32),
        AddressList(entries=4096, taps=4),
        AddressList(entries=4096, ports=2),
    )


def test_address_list_by_hand():
    # 4096 entries of four addresses of 16 bits on two ports: banks of 2048 x 64 bits, 16 KiB
    unit = AddressList(entries=4096, address_bits=16, taps=4, ports=2)
    design, table = dense_with(address_list=unit), cost_table(DENSE.technology)
    bank = {"size_bytes": 16 * 1024, "width_bits": 64}
    assert area_by_part(design)["address_list"] == 2 * table.area_mm2("sram", **bank)
    assert leakage_by_part(design)["address_list"] == 2 * table.leakage_mw("sram", **bank)
    for action in ("read", "write"):
        price = table.energy_pj("sram", action, **bank)
        assert energy_per_action(design)["address_list", action] == price
    with pytest.raises(ConfigError, match=r"entries must be at least one for each of ports=4"):
        dense_with(address_list=AddressList(entries=3, ports=4))


class TestFeatureCache(UnitSuite):
    design = dense_with(feature_cache=FeatureCache(capacity_bytes=4096))
    part = "feature_cache"
    larger = (
        FeatureCache(capacity_bytes=8192),
        FeatureCache(capacity_bytes=4096, lanes=17),
        FeatureCache(capacity_bytes=4096, macs=8),
    )


class TestFrameDifferencer(UnitSuite):
    design = dense_with(frame_differencer=FrameDifferencer(held_bytes=4096))
    part = "frame_differencer"
    larger = (
        FrameDifferencer(lanes=17, held_bytes=4096),
        FrameDifferencer(held_bytes=8192),
    )


class TestMotionEstimator(UnitSuite):
    design = dense_with(motion_estimator=MotionEstimator(pixel_bytes=38400, tiles=300))
    part = "motion_estimator"
    larger = (
        MotionEstimator(pixel_bytes=76800, tiles=300),
        MotionEstimator(pixel_bytes=38400, tiles=1200),
        MotionEstimator(pixel_bytes=38400, tiles=300, adders=128),
    )


class TestWarper(UnitSuite):
    design, part = dense_with(warper=Warper(capacity_bytes=65536)), "warper"
    larger = (Warper(capacity_bytes=131072), Warper(capacity_bytes=65536, lanes=33))


def test_motion_units_by_hand():
    table = cost_table(DENSE.technology)
    design = dense_with(
        motion_estimator=MotionEstimator(pixel_bytes=32768, tiles=1024, adders=32),
        warper=Warper(capacity_bytes=65536, lanes=16),
    )
    prices = energy_per_action(design)
    pixels = {"size_bytes": 32768, "width_bits": 256}
    # Two sums of 24 bits and a vector of 16, for 1024 tiles: 8 KiB of 64 bits.
    tiles = {"size_bytes": 8192, "width_bits": 64}
    # A quarter of the memory for each tap, 16 values of 8 bits wide.
    bank = {"size_bytes": 16384, "width_bits": 128}
    for action in ("read", "write"):
        assert prices["motion_estimator", f"{action}_pixels"] == table.energy_pj(
            "sram", action, **pixels
        )
        assert prices["motion_estimator", f"{action}_tile"] == table.energy_pj(
            "sram", action, **tiles
        )
        assert prices["warper", f"{action}_map"] == table.energy_pj("sram", action, **bank)
    multiply = table.energy_pj("int_multiplier", "multiply", bits=8)
    assert prices["warper", "interpolate"] == pytest.approx(
        4 * multiply + 3 * table.energy_pj("int_adder", "add", bits=16)
    )
    lanes = 64 * table.area_mm2("int_multiplier", bits=8) + 48 * table.area_mm2(
        "int_adder", bits=16
    )
    assert area_by_part(design)["warper"] == pytest.approx(
        lanes + 4 * table.area_mm2("sram", **bank)
    )


class TestIndependentLanes(UnitSuite):
    design, part = preset("lanes_16x16"), "lanes"
    larger = (IndependentLanes(index_bits=14),)


class TestSumPredictor(UnitSuite):
    design, part = dense_with(sum_predictor=SumPredictor(multipliers=16)), "sum_predictor"
    larger = (
        SumPredictor(multipliers=17),
        SumPredictor(multipliers=16, adders=1),
        SumPredictor(multipliers=16, thresholds=8192),
    )


def test_sum_predictor_by_hand():
    # 16 x 16 units, sums of 32 bits, 4,096 thresholds; 16 multipliers of 8 bits
    design, table = (
        dense_with(sum_predictor=SumPredictor(multipliers=16)),
        cost_table(DENSE.technology),
    )
    memory = {"size_bytes": 4096 * 4, "width_bits": 32}
    area = 256 * (table.area_mm2("comparator", bits=32) + table.area_mm2("register", bits=32))
    area += table.area_mm2("sram", **memory)
    area += 16 * (table.area_mm2("int_multiplier", bits=8) + table.area_mm2("int_adder", bits=32))
    assert area_by_part(design)["sum_predictor"] == pytest.approx(area)
    prices = energy_per_action(design)
    assert prices["sum_predictor", "check"] == table.energy_pj("comparator", "compare", bits=32)
    without = energy_per_action(dense_with(sum_predictor=SumPredictor()))
    assert not {("sum_predictor", "multiply"), ("sum_predictor", "add")} & {*without}
    adding = dense_with(sum_predictor=SumPredictor(multipliers=16, adders=8))
    area += 8 * table.area_mm2("int_adder", bits=32)
    assert area_by_part(adding)["sum_predictor"] == pytest.approx(area)
    added = table.energy_pj("int_adder", "add", bits=32)
    assert energy_per_action(adding)["sum_predictor", "add"] == added


class TestWeightTables(UnitSuite):
    design, part = preset("tables_16x16"), "weight_tables"
    larger = (WeightTables(filters=3), WeightTables(filters=2, sums=1))


def test_lanes_by_hand():
    # 64 KiB of int8 weights in 64 banks, words of 4: 1,024 indices of 13 bits in each bank. A lane
    # holds two words of 4 x (8 + 13) bits, an index and an address.
    design, table = preset("lanes_16x16"), cost_table(DENSE.technology)
    bank = {"size_bytes": 1024 * 13 / 8, "width_bits": 4 * 13}
    area = 64 * table.area_mm2("sram", **bank)
    area += 256 * table.area_mm2("int_adder", bits=13) + 256 * table.area_mm2("int_adder", bits=24)
    area += 256 * table.area_mm2("register", bits=2 * 4 * 21 + 13 + 24)
    assert area_by_part(design)["lanes"] == pytest.approx(area)
    prices = energy_per_action(design)
    assert prices["lanes", "read_order"] == table.energy_pj("sram", "read", **bank)


class TestLeaderTable(UnitSuite):
    design = dense_with(leader_table=LeaderTable(max_length=32, width=16))
    part = "leader_table"
    larger = (
        LeaderTable(max_length=33, width=16),
        LeaderTable(max_length=32, width=17),
        LeaderTable(max_length=32, width=16, lanes=5),
        LeaderTable(max_length=32, width=16, entries=17),
        LeaderTable(max_length=32, width=16, undecided=2),
        LeaderTable(max_length=32, width=16, divided_elements=9),
    )


class TestRangeTable(UnitSuite):
    design = dense_with(range_table=RangeTable(entries=256, ways=8, max_length=16))
    part = "range_table"
    larger = (
        RangeTable(entries=512, ways=8, max_length=16),
        RangeTable(entries=256, ways=16, max_length=16),
        RangeTable(entries=256, ways=8, max_length=17),
        RangeTable(entries=256, ways=8, max_length=16, range_bits=9),
        RangeTable(entries=256, ways=8, max_length=16, width=17),
    )


class TestResultCache(UnitSuite):
    design = dense_with(result_cache=ResultCache(entries=256, ways=8, max_hashes=16))
    part = "result_cache"
    larger = (
        ResultCache(entries=512, ways=8, max_hashes=16),
        ResultCache(entries=256, ways=16, max_hashes=16),
        ResultCache(entries=256, ways=8, max_hashes=17),
    )


def test_result_cache_by_hand():
    # 32 sets give 5 of 16 bits away: 256 tags of 11 bits, a set of 8 read at a time; 256 valid bits
    # and 16 thresholds of 16 bits in registers.
    unit = ResultCache(entries=256, ways=8, max_hashes=16)
    design, table = dense_with(result_cache=unit), cost_table(DENSE.technology)
    tags = {"size_bytes": 352, "width_bits": 88}
    area = (
        table.area_mm2("sram", **tags)
        + table.area_mm2("register", bits=256 + 256)
        + 8 * table.area_mm2("comparator", bits=11)
        + 16 * table.area_mm2("comparator", bits=16)
    )
    assert area_by_part(design)["result_cache"] == pytest.approx(area)
    prices = energy_per_action(design)
    lookup = (
        table.energy_pj("sram", "read", **tags)
        + table.energy_pj("register", "read", bits=8)
        + 8 * table.energy_pj("comparator", "compare", bits=11)
    )
    assert prices["result_cache", "lookup"] == pytest.approx(lookup)
    with pytest.raises(ConfigError, match=r"result_cache.ways must divide entries=256, got 3"):
        dense_with(result_cache=ResultCache(entries=256, ways=3))


class TestLeaderTableWithoutMeans(TestLeaderTable):
    design = dense_with(leader_table=LeaderTable(max_length=32, width=16, means=False))
    larger = (LeaderTable(max_length=32, width=16),)


def test_leader_table_by_hand():
    # Three lanes and one of squares of 32 int8 products, added in 32 bits; of each lane two sums
    # and a comparator; eleven vectors (8 leaders, two that wait and one that comes) of 64 x 8 + 32
    # + 16 = 560 bits; 8 leaders' sums twice, of two steps of 32 x 16 + 16 bits: 2,112 bytes.
    unit = LeaderTable(entries=8, max_length=64, width=32, lanes=3, undecided=2, divided_elements=4)
    design, table = dense_with(leader_table=unit), cost_table(DENSE.technology)
    sums = {"size_bytes": 2112, "width_bits": 528}
    expected = {
        ("int_multiplier", 8): 128,
        ("int_adder", 32): 128 + 6,
        ("comparator", 32): 3 + 1,
        ("int_multiplier", 16): 1 + 4,  # the tolerance, and sums that are divided
        ("int_adder", 16): 32,
        ("register", 11 * 560): 1,
    }
    logic = sum(count * table.area_mm2(name, bits=b) for (name, b), count in expected.items())
    area = logic + table.area_mm2("sram", **sums)
    assert area_by_part(design)["leader_table"] == pytest.approx(area)
    prices = energy_per_action(design)
    register = table.energy_pj("register", "write", bits=8)
    assert prices["leader_table", "keep"] == register
    assert prices["leader_table", "correlate"] == pytest.approx(
        table.energy_pj("int_multiplier", "multiply", bits=8)
        + table.energy_pj("int_adder", "add", bits=32)
        + register
    )
    assert prices["leader_table", "compare"] == pytest.approx(
        2 * table.energy_pj("int_adder", "add", bits=32)
        + table.energy_pj("comparator", "compare", bits=32)
    )
    assert prices["leader_table", "judge"] == pytest.approx(
        table.energy_pj("int_multiplier", "multiply", bits=16)
        + table.energy_pj("comparator", "compare", bits=32)
    )
    assert prices["leader_table", "read_sums"] == table.energy_pj("sram", "read", **sums)
    with pytest.raises(ConfigError, match=r"lanes must be at most .* entries \+ undecided = 3"):
        dense_with(leader_table=LeaderTable(max_length=8, entries=2, lanes=4))


class TestChangeDetector(UnitSuite):
    design = dense_with(change_detector=ChangeDetector(lanes=8, line_bits=640))
    part = "change_detector"
    larger = (
        ChangeDetector(lanes=9, line_bits=640),
        ChangeDetector(lanes=8, line_bits=1280),
        ChangeDetector(lanes=8, line_bits=640, marks=2**17),
        ChangeDetector(lanes=8, line_bits=640, queue_entries=64),
    )


class TestNeighbourMatcher(UnitSuite):
    design = dense_with(neighbour_matcher=NeighbourMatcher(width=8, line_entries=64))
    part = "neighbour_matcher"
    larger = (
        NeighbourMatcher(width=9, line_entries=64),
        NeighbourMatcher(width=8, lanes=2, line_entries=64),
        NeighbourMatcher(width=8, line_entries=128),
    )


class TestNeighbourMatcherWithoutMeans(TestNeighbourMatcher):
    design = dense_with(neighbour_matcher=NeighbourMatcher(width=8, line_entries=64, means=False))
    larger = (NeighbourMatcher(width=8, line_entries=64),)


def test_neighbour_matcher_by_hand():
    # Two lanes and one of squares of 32 int8 products, added in 32 bits; five tests a lane and t^2;
    # 128 entries a lane of 32 x 8 + 24 + 16 = 296 bits: 4,736 bytes; 256 sums of 32 x 16 + 32 bits.
    unit = NeighbourMatcher(width=32, lanes=2, line_entries=256)
    design, table = dense_with(neighbour_matcher=unit), cost_table(DENSE.technology)
    bank = {"size_bytes": 4736, "width_bits": 296}
    sums = {"size_bytes": 17408, "width_bits": 544}
    expected = {
        ("int_multiplier", 8): 96,
        ("int_adder", 32): 96,
        ("int_multiplier", 16): 11 + 32,  # 32 divide sums
        ("comparator", 32): 6,
        ("int_adder", 16): 32,
    }
    logic = sum(count * table.area_mm2(name, bits=b) for (name, b), count in expected.items())
    memories = 2 * table.area_mm2("sram", **bank) + table.area_mm2("sram", **sums)
    assert area_by_part(design)["neighbour_matcher"] == pytest.approx(logic + memories)
    prices = energy_per_action(design)
    assert prices["neighbour_matcher", "read_line"] == table.energy_pj("sram", "read", **bank)
    assert prices["neighbour_matcher", "write_sums"] == table.energy_pj("sram", "write", **sums)
    assert prices["neighbour_matcher", "test"] == pytest.approx(
        5 * table.energy_pj("int_multiplier", "multiply", bits=16)
        + 3 * table.energy_pj("comparator", "compare", bits=32)
    )
    with pytest.raises(ConfigError, match=r"line_entries must be at least one for each of lanes=2"):
        dense_with(neighbour_matcher=NeighbourMatcher(lanes=2, line_entries=1))


def _needs_an_address_list(design):
    if design.address_list is not None:
        return []
    return ["address_list must be given with a sorter, got None; add AddressList(...)"]


@dataclass(frozen=True, kw_only=True)
class Sorter(Unit):
    """A unit of a user's own."""

    words = "sorter"
    colour = "#7a6fd0"
    exploits = True

    lanes: int = field(metadata=integer(1, 64))

    def bill(self, design):
        return [Item(self.lanes, "comparator", {"bits": design.operand_bits})]

    def prices(self, design, table):
        return {"compare": table.energy_pj("comparator", "compare", bits=design.operand_bits)}


@dataclass(frozen=True, kw_only=True)
class Sorting(Accelerator):
    """A design of a user's own."""

    sorter: Sorter | None = field(default=None, metadata=part(Sorter, optional=True))


def sorting(**changes):
    fields = {entry.name: getattr(DENSE, entry.name) for entry in dataclasses.fields(DENSE)}
    return Sorting(**{**fields, "sorter": Sorter(lanes=2), **changes})


class TestSorter(UnitSuite):
    design, part, larger = sorting(), "sorter", (Sorter(lanes=3),)


def test_a_unit_of_ones_own_is_a_part_like_any_other():
    design, plain = sorting(), area_by_part(DENSE)
    area = area_by_part(design)
    assert set(area) == {*PARTS, "sorter"}
    table = cost_table(DENSE.technology)
    assert area == plain | {"sorter": 2 * table.area_mm2("comparator", bits=8)}
    assert energy_per_action(design)["sorter", "compare"] == table.energy_pj(
        "comparator", "compare", bits=8
    )
    assert design.without_reuse() == sorting(name="dense_16x16_dense", sorter=None)
    with pytest.raises(ConfigError) as caught:
        sorting(sorter=Sorter(lanes=0), dram=None)
    assert [message.partition(" ")[0] for message in caught.value.violations] == [
        "Sorting.dram",
        "Sorting.sorter.lanes",
    ]


def test_a_unit_of_ones_own_may_need_another():
    from accelerators.rules import Relation

    @dataclass(frozen=True, kw_only=True)
    class Needy(Sorter):
        OWNER_RELATIONS = (Relation((), _needs_an_address_list),)

    @dataclass(frozen=True, kw_only=True)
    class Needing(Accelerator):
        needy: Needy | None = field(
            default=None, metadata=part(Needy, optional=True, words="needy", colour="#123456")
        )

    fields = {entry.name: getattr(DENSE, entry.name) for entry in dataclasses.fields(DENSE)}
    with pytest.raises(ConfigError, match="address_list must be given with a sorter, got None"):
        Needing(**fields, needy=Needy(lanes=1))
    lists = fields | {"address_list": AddressList(entries=1)}
    assert Needing(**lists, needy=Needy(lanes=1)).parts()["needy"].words == "needy"


def test_source_text_imports_classes_from_where_they_are():
    design = sorting()
    source = design.to_python()
    assert f"from {__name__} import (\n    Sorter,\n    Sorting,\n)\n" in source
    names = {}
    exec(source, names)
    assert names["accelerator"] == design


def test_a_class_that_is_not_loaded_is_not_looked_for():
    description = sorting().to_dict()
    assert description["class"] == f"{__name__}:Sorting"
    for other in ("this:That", 3):
        with pytest.raises(ConfigError, match="must be a loaded class of designs, got"):
            Accelerator.from_dict(description | {"class": other})
    with pytest.raises(ConfigError, match="must be a loaded class"):
        Sorting.from_dict(description | {"class": "accelerators.accelerator:Accelerator"})


def test_a_unit_without_words_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Mute(Unit):
        def bill(self, design):
            return []

        def prices(self, design, table):
            return {}

    @dataclass(frozen=True, kw_only=True)
    class Muted(Accelerator):
        mute: Mute | None = field(default=None, metadata=part(Mute, optional=True))

    with pytest.raises(ConfigError, match=r"Mute\.words and colour must be given"):
        Muted.parts()


def test_the_suite_needs_no_pytest():
    check = "import accelerators.testing, sys; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
