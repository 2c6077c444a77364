"""Messages of broken descriptions word for word; nothing but ConfigError for any value."""

import dataclasses
import math
import pickle
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelerators import (
    Accelerator,
    CentroidCache,
    ConfigError,
    Dram,
    LshFrontEnd,
    Reconstructor,
    SramBuffer,
    SystolicArray,
    area_by_part,
    energy_per_action,
    leakage_by_part,
    preset,
)

REUSE = preset("reuse_16x16")
PART_FIELDS = [
    (part.name, inner.name)
    for part in dataclasses.fields(Accelerator)
    if dataclasses.is_dataclass(getattr(REUSE, part.name))
    for inner in dataclasses.fields(getattr(REUSE, part.name))
]
TOP_FIELDS = [entry.name for entry in dataclasses.fields(Accelerator)]


def broken(**changes) -> list[str]:
    """The violations of the reuse preset with changed fields; a dict changes a part's fields."""
    for name, change in changes.items():
        if isinstance(change, dict):
            changes[name] = dataclasses.replace(getattr(REUSE, name), **change)
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(REUSE, **changes)
    assert str(caught.value) == "\n".join(caught.value.violations)
    return list(caught.value.violations)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"array": {"rows": 0}},
            "Accelerator.array.rows must be an integer from 1 to 4096, got 0; use 1",
        ),
        (
            {"array": {"columns": 5000}},
            "Accelerator.array.columns must be an integer from 1 to 4096, got 5000; use 4096",
        ),
        (
            {"array": {"rows": 16.0}},
            "Accelerator.array.rows must be an integer from 1 to 4096, got 16.0 (float); use 16",
        ),
        (
            {"array": {"rows": "16"}},
            "Accelerator.array.rows must be an integer from 1 to 4096, got '16' (str); use 16",
        ),
        (
            {"array": {"rows": True}},
            "Accelerator.array.rows must be an integer from 1 to 4096, got True (bool); "
            "use a whole number in that range",
        ),
        (
            {"array": {"rows": np.int64(16)}},
            "Accelerator.array.rows must be an integer from 1 to 4096, got np.int64(16) (int64); "
            "convert it by int(...)",
        ),
        (
            {"array": {"rows": np.int64(0)}},
            "Accelerator.array.rows must be an integer from 1 to 4096, got np.int64(0) (int64); "
            "use a whole number in that range",
        ),
        (
            {"operand_bits": np.uint8(8)},
            "Accelerator.operand_bits must be 8 or 16, got np.uint8(8) (uint8); "
            "convert it by int(...)",
        ),
        (
            {"clock_hz": np.float32(2.5)},
            "Accelerator.clock_hz must be a finite number from 1 to 1e+12, "
            "got np.float32(2.5) (float32); convert it by float(...)",
        ),
        (
            {"array": {"rows": math.nan}},
            "Accelerator.array.rows must be an integer from 1 to 4096, got nan (float); "
            "use a whole number in that range",
        ),
        (
            {"array": {"rows": 10**9000}},
            "Accelerator.array.rows must be an integer from 1 to 4096, "
            "got an integer of 29898 bits; use 4096",
        ),
        (
            {"array": {"dataflow": "row_stationary"}},
            "Accelerator.array.dataflow must be one of 'weight_stationary', 'output_stationary', "
            "'input_stationary', got 'row_stationary'; use 'weight_stationary'",
        ),
        (
            {"array": {"fold_timing": "overlap"}},
            "Accelerator.array.fold_timing must be one of 'sequential', 'overlapped', "
            "got 'overlap'; use 'overlapped'",
        ),
        (
            {"array": {"fold_timing": None}},
            "Accelerator.array.fold_timing must be one of 'sequential', 'overlapped', got None; "
            "use one of these",
        ),
        (
            {"weight_buffer": {"width_bits": 100}},
            "Accelerator.weight_buffer.width_bits must be a multiple of 8 from 8 to 4096, got 100; "
            "use 96 or 104",
        ),
        (
            {"weight_buffer": {"capacity_bytes": 15}},
            "Accelerator.weight_buffer.capacity_bytes must hold one access of width_bits=128, "
            "got 15; use 16 or more",
        ),
        (
            {"weight_buffer": {"capacity_bytes": 63, "ports": 4}},
            "Accelerator.weight_buffer.capacity_bytes must hold one access on each of ports=4 of "
            "width_bits=128, got 63; use 64 or more",
        ),
        (
            {"weight_buffer": {"ports": 1025}},
            "Accelerator.weight_buffer.ports must be an integer from 1 to 1024, got 1025; use 1024",
        ),
        (
            {"weight_buffer": {"ports": 0}},
            "Accelerator.weight_buffer.ports must be an integer from 1 to 1024, got 0; use 1",
        ),
        (
            {"weight_buffer": {"capacity_bytes": 2**31}},
            "Accelerator.weight_buffer.capacity_bytes must be an integer from 1 to 1073741824, "
            "got 2147483648; use 1073741824",
        ),
        (
            {"dram": {"kind": "focus"}},
            "Accelerator.dram.kind must be one of 'focus_2026', 'horowitz_2014_low', "
            "'horowitz_2014_high', got 'focus'; use 'focus_2026'",
        ),
        (
            {"dram": {"bandwidth_bytes_per_cycle": 0}},
            "Accelerator.dram.bandwidth_bytes_per_cycle must be a finite number from 0.001 to "
            "65536, got 0; use 0.001",
        ),
        (
            {"dram": {"bandwidth_bytes_per_cycle": math.inf}},
            "Accelerator.dram.bandwidth_bytes_per_cycle must be a finite number from 0.001 to "
            "65536, got inf; use 65536",
        ),
        (
            {"dram": {"latency_cycles": -1}},
            "Accelerator.dram.latency_cycles must be an integer from 0 to 100000, got -1; use 0",
        ),
        (
            {"dram": {"burst_bytes": 0}},
            "Accelerator.dram.burst_bytes must be an integer from 1 to 65536, got 0; use 1",
        ),
        (
            {"clock_hz": math.nan},
            "Accelerator.clock_hz must be a finite number from 1 to 1e+12, got nan; "
            "use a number in that range",
        ),
        (
            {"front_end": {"max_hashes": 63}},
            "Accelerator.front_end.max_hashes must be an integer from 1 to 62, got 63; use 62",
        ),
        (
            {"front_end": {"projection": "gaussian"}},
            "Accelerator.front_end.projection must be one of 'sign', 'sparse', 'int8', "
            "got 'gaussian'; use one of these",
        ),
        (
            {"front_end": {"packing": 1}},
            "Accelerator.front_end.packing must be True or False, got 1 (int); use one of these",
        ),
        (
            {"cache": {"pipelined": "yes"}},
            "Accelerator.cache.pipelined must be True or False, got 'yes' (str); use one of these",
        ),
        (
            {"cache": {"pipelined": None}},
            "Accelerator.cache.pipelined must be True or False, got None; use one of these",
        ),
        (
            {"cache": {"replacement": "LRU"}},
            "Accelerator.cache.replacement must be one of 'lru', 'fifo', 'random', 'none', got "
            "'LRU'; use one of these",
        ),
        (
            {"cache": {"update_cycles": 65}},
            "Accelerator.cache.update_cycles must be an integer from 0 to 64, got 65; use 64",
        ),
        (
            {"cache": {"banks": 128}},
            "Accelerator.cache.banks must be an integer from 1 to 64, got 128; use 64",
        ),
        (
            {"cache": {"banks": 3}},  # 1024 entries of 8 ways
            "Accelerator.cache.banks must divide the entries / ways = 128 sets, got 3; use 2 or 4",
        ),
        (
            {"cache": {"entries": 72, "banks": 6}},  # 9 sets: no even divisors
            "Accelerator.cache.banks must divide the entries / ways = 9 sets, got 6; use 3 or 9",
        ),
        (
            {"cache": {"entries": 8, "banks": 2}},
            "Accelerator.cache.banks must divide the entries / ways = 1 sets, got 2; use 1",
        ),
        (  # banks are looked at once there are whole sets
            {"cache": {"entries": 100, "banks": 3}},
            "Accelerator.cache.ways must divide entries=100, got 8; use 4 or 10",
        ),
        (
            {"cache": {"entries": 100}},
            "Accelerator.cache.ways must divide entries=100, got 8; use 4 or 10",
        ),
        (
            {"cache": {"entries": 4099}},  # a prime: 4099 ways would divide, but are too many
            "Accelerator.cache.ways must divide entries=4099, got 8; use 1",
        ),
        (
            {"operand_bits": 4},
            "Accelerator.operand_bits must be 8 or 16, got 4; use 8",
        ),
        (
            {"accumulator_bits": 64},
            "Accelerator.accumulator_bits must be 16, 24, 32 or 48, got 64; use 48",
        ),
        (
            {"operand_bits": 16, "accumulator_bits": 24},
            "Accelerator.accumulator_bits must hold one product of operand_bits=16, got 24; use 32",
        ),
        (
            {"technology": "hwcomponents_45"},
            "Accelerator.technology must be one of 'hwcomponents_45nm', 'hwcomponents_28nm', "
            "'hwcomponents_22nm', 'horowitz_2014_45nm' or the path of a .csv file, "
            "got 'hwcomponents_45'; "
            "use 'hwcomponents_45nm'",
        ),
        (
            {"technology": "absent.csv"},
            "Accelerator.technology names a broken table: CostTable[absent.csv] must be a readable "
            "file of UTF-8 text, got: No such file or directory; check the path and the file",
        ),
        (
            {"name": ""},
            "Accelerator.name must be a string of 1 to 200 characters, got ''; "
            "use a name such as 'reuse_16x16'",
        ),
        (
            {"array": (16, 16)},
            "Accelerator.array must be a SystolicArray, got (16, 16) (tuple); "
            "use SystolicArray(...)",
        ),
        (
            {"cache": "lru"},
            "Accelerator.cache must be a CentroidCache or None, got 'lru' (str); "
            "use CentroidCache(...)",
        ),
        (
            {"front_end": None},
            "Accelerator.front_end must be given with a cache, whose rows are as long as its "
            "sub-vectors, got None; add LshFrontEnd(...), or leave out the cache",
        ),
    ],
)
def test_message_word_for_word(changes, message):
    assert broken(**changes) == [message]


def test_every_violation_comes_in_one_error_in_field_order():
    assert broken(
        name=3,
        array=SystolicArray(rows=-1, columns=2.5, dataflow="ws"),
        dram=Dram(bandwidth_bytes_per_cycle="fast"),
        clock_hz=-1,
        cache=CentroidCache(entries=12, ways=5, miss_cycles=-1),
    ) == [
        "Accelerator.name must be a string of 1 to 200 characters, got 3 (int); "
        "use a name such as 'reuse_16x16'",
        "Accelerator.array.rows must be an integer from 1 to 4096, got -1; use 1",
        "Accelerator.array.columns must be an integer from 1 to 4096, got 2.5 (float); "
        "use a whole number in that range",
        "Accelerator.array.dataflow must be one of 'weight_stationary', 'output_stationary', "
        "'input_stationary', got 'ws'; use one of these",
        "Accelerator.dram.bandwidth_bytes_per_cycle must be a finite number from 0.001 to 65536, "
        "got 'fast' (str); use a number in that range",
        "Accelerator.clock_hz must be a finite number from 1 to 1e+12, got -1; use 1",
        "Accelerator.cache.miss_cycles must be an integer from 0 to 10000, got -1; use 0",
        "Accelerator.cache.ways must divide entries=12, got 5; use 4 or 6",
    ]


def test_parts_alone_do_not_raise():
    assert SystolicArray(rows=0, columns=-3).rows == 0
    assert CentroidCache(entries=100, ways=8).ways == 8


def test_config_error_is_a_value_error_and_survives_pickling():
    with pytest.raises(ValueError, match=r"^Accelerator\.clock_hz must") as caught:
        dataclasses.replace(REUSE, clock_hz=0)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is ConfigError
    assert (copy.violations, str(copy)) == (caught.value.violations, str(caught.value))


@pytest.mark.parametrize("kept", ["front_end", "centroid_buffer", "reconstructor"])
def test_a_design_has_the_units_it_has(kept):
    units = ["front_end", "cache", "centroid_buffer", "reconstructor"]
    part = dataclasses.replace(REUSE, **dict.fromkeys(unit for unit in units if unit != kept))
    assert part.has_reuse
    assert [unit for unit in units if unit in part.units] == [kept]
    assert part.without_reuse().units == REUSE.without_reuse().units
    assert not dataclasses.replace(part, **{kept: None}).has_reuse


def test_values_at_the_bounds_are_valid():
    largest = Accelerator(
        name="n" * 200,
        array=SystolicArray(rows=4096, columns=4096),
        activation_buffer=SramBuffer(capacity_bytes=2**30, width_bits=4096, ports=64),
        weight_buffer=SramBuffer(capacity_bytes=1, width_bits=8),
        output_buffer=SramBuffer(capacity_bytes=512, width_bits=4096),
        dram=Dram(
            bandwidth_bytes_per_cycle=65536,
            kind="horowitz_2014_high",
            latency_cycles=100_000,
            burst_bytes=65536,
        ),
        clock_hz=10**12,
        operand_bits=16,
        accumulator_bits=48,
        front_end=LshFrontEnd(
            max_hashes=62, max_length=4096, lanes=256, projection="int8", packing=True
        ),
        cache=CentroidCache(
            entries=2**24,
            ways=1024,
            banks=64,
            update_cycles=64,
            pipelined=True,
            replacement="random",
            clear_entries_per_cycle=2**24,
        ),
        centroid_buffer=SramBuffer(capacity_bytes=2**30),
        reconstructor=Reconstructor(ports=64, width=4096),
    )
    smallest = dataclasses.replace(
        largest,
        array=SystolicArray(
            rows=1, columns=1, dataflow="output_stationary", fold_timing="overlapped"
        ),
        dram=Dram(bandwidth_bytes_per_cycle=0.001),
        clock_hz=1,
        operand_bits=8,
        accumulator_bits=16,
        front_end=LshFrontEnd(max_hashes=1, max_length=1, latency_cycles=0),
        cache=CentroidCache(entries=1, ways=1, miss_cycles=0),
        centroid_buffer=SramBuffer(capacity_bytes=1, width_bits=8),
        reconstructor=Reconstructor(ports=1, width=1),
    )
    for design in (largest, smallest):
        for price in (area_by_part, leakage_by_part, energy_per_action):
            assert all(math.isfinite(v) and v >= 0 for v in price(design).values())


class _NoRepr:
    def __repr__(self):
        raise RuntimeError("no repr")

    def __eq__(self, other):
        raise RuntimeError("no equality")

    __hash__ = object.__hash__


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=1, max_value=5000),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=300),
    st.binary(max_size=8),
    st.complex_numbers(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    st.sampled_from(
        [
            "x.csv",
            "a\0b.csv",
            "\ud800.csv",
            10**5000,
            -(10**5000),
            np.int64(16),
            np.float64(2.0),
            np.float32("nan"),
            np.arange(3),
            np.array(16),
            Decimal("sNaN"),
            object(),
            _NoRepr(),
            int,
            SystolicArray(rows=1, columns=1),
            preset,
        ]
    ),
)


@given(where=st.sampled_from(PART_FIELDS), value=ANYTHING)
def test_any_value_in_a_part_is_accepted_or_a_config_error(where, value):
    part, name = where
    _accepted_or_config_error(
        **{part: dataclasses.replace(getattr(REUSE, part), **{name: value})},
        path=f"Accelerator.{part}.",
    )


@given(name=st.sampled_from(TOP_FIELDS), value=ANYTHING)
def test_any_value_in_the_accelerator_is_accepted_or_a_config_error(name, value):
    _accepted_or_config_error(**{name: value}, path="Accelerator.")


def _accepted_or_config_error(path: str, **changes) -> None:
    """A design that is accepted can be priced and comes back from its description."""
    try:
        design = dataclasses.replace(REUSE, **changes)
    except ConfigError as error:
        for violation in error.violations:
            assert violation.startswith(path)
            assert "; " in violation  # a fix
            assert len(violation) < 500
        return
    for price in (area_by_part, leakage_by_part, energy_per_action):
        assert all(math.isfinite(number) and number >= 0 for number in price(design).values())
    assert Accelerator.from_dict(design.to_dict()) == design
