"""Descriptions as dictionaries and as Python come back equal; ready designs are valid."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelerators
from accelerators import (
    Accelerator,
    CentroidCache,
    ConfigError,
    Dram,
    LshFrontEnd,
    Reconstructor,
    SramBuffer,
    SystolicArray,
    preset,
    presets,
)

BUFFERS = st.builds(
    SramBuffer,
    capacity_bytes=st.integers(64 * 512, 2**30),
    width_bits=st.integers(1, 512).map(lambda n: 8 * n),
    ports=st.integers(1, 64),
)
REUSE_UNITS = st.fixed_dictionaries(
    {
        "front_end": st.builds(
            LshFrontEnd,
            max_hashes=st.integers(1, 62),
            max_length=st.integers(1, 4096),
            lanes=st.integers(1, 256),
            projection=st.sampled_from(["sign", "sparse", "int8"]),
            packing=st.booleans(),
            latency_cycles=st.integers(0, 10_000),
        ),
        "cache": st.builds(
            lambda depth, ways, banks, **fields: CentroidCache(
                entries=depth * banks * ways, ways=ways, banks=banks, **fields
            ),
            st.integers(1, 1000),
            st.integers(1, 64),
            st.integers(1, 64),
            update_cycles=st.integers(0, 64),
            pipelined=st.booleans(),
            replacement=st.sampled_from(["lru", "fifo", "random"]),
        ),
        "centroid_buffer": BUFFERS,
        "reconstructor": st.builds(
            Reconstructor, ports=st.integers(1, 64), width=st.integers(1, 4096)
        ),
    }
)
ACCELERATORS = st.builds(
    lambda reuse, **parts: Accelerator(**parts, **reuse),
    st.one_of(st.just({}), REUSE_UNITS),
    name=st.text(min_size=1, max_size=200),
    array=st.builds(
        SystolicArray,
        rows=st.integers(1, 4096),
        columns=st.integers(1, 4096),
        dataflow=st.sampled_from(["weight_stationary", "output_stationary", "input_stationary"]),
        fold_timing=st.sampled_from(["sequential", "overlapped"]),
    ),
    activation_buffer=BUFFERS,
    weight_buffer=BUFFERS,
    output_buffer=BUFFERS,
    dram=st.builds(
        Dram,
        bandwidth_bytes_per_cycle=st.floats(0.001, 65536),
        kind=st.sampled_from(accelerators.dram_kinds()),
        latency_cycles=st.integers(0, 100_000),
        burst_bytes=st.integers(1, 65536),
    ),
    clock_hz=st.one_of(st.floats(1, 1e12), st.integers(1, 10**12)),
    operand_bits=st.sampled_from([8, 16]),
    accumulator_bits=st.sampled_from([32, 48]),
    technology=st.sampled_from(accelerators.BUILT_IN_TABLES),
)


def run_source(source: str) -> Accelerator:
    names: dict = {}
    exec(source, names)
    return names["accelerator"]


@given(ACCELERATORS)
def test_round_trips(design):
    assert Accelerator.from_dict(design.to_dict()) == design
    assert Accelerator.from_dict(json.loads(json.dumps(design.to_dict()))) == design
    assert run_source(design.to_python()) == design


@pytest.mark.parametrize("name", ["'", '"', "\"'", "\\", "\n", "\ud800", "{x}", "ü", "\\'"])
def test_awkward_names_survive_python_source(name):
    design = dataclasses.replace(preset("dense_16x16"), name=name)
    assert run_source(design.to_python()) == design


def test_numpy_floats_are_written_as_numbers():
    design = dataclasses.replace(preset("dense_16x16"), clock_hz=np.float64(1e9))
    assert "np." not in design.to_python()
    assert type(design.to_dict()["clock_hz"]) is float


def test_python_source_reads_like_a_hand_written_design():
    source = preset("reuse_16x16").to_python()
    assert source.startswith("from accelerators import (\n    Accelerator,\n    CentroidCache,\n")
    assert (
        '\n\naccelerator = Accelerator(\n    name="reuse_16x16",\n    array=SystolicArray(\n'
        in source
    )
    assert max(len(line) for line in source.splitlines()) <= 100


def test_fields_with_a_default_may_be_left_out():
    design = preset("dense_16x16")
    description = design.to_dict()
    for name in ("technology", "operand_bits", "accumulator_bits", "front_end", "cache"):
        del description[name]
    del description["array"]["dataflow"]
    del description["array"]["fold_timing"]
    del description["dram"]["latency_cycles"]
    del description["dram"]["burst_bytes"]
    del description["weight_buffer"]["ports"]
    assert Accelerator.from_dict(description) == design


def test_unknown_missing_and_broken_fields_come_in_one_error():
    description = preset("reuse_16x16").to_dict()
    description["clock_mhz"] = 500
    description["clock_hz"] = 0
    del description["weight_buffer"]
    description["array"] = {"row": 16, "columns": 0}
    description["cache"]["ways"] = 3
    with pytest.raises(ConfigError) as caught:
        Accelerator.from_dict(description)
    assert list(caught.value.violations) == [
        "Accelerator.clock_mhz must be a known field, got 500 (int); the fields are "
        + ", ".join(field.name for field in dataclasses.fields(Accelerator)),
        "Accelerator.array.row must be a known field, got 16 (int); use rows",
        "Accelerator.array.rows must be given, got nothing; add it",
        "Accelerator.weight_buffer must be given, got nothing; add it",
        "Accelerator.array.columns must be an integer from 1 to 4096, got 0; use 1",
        "Accelerator.clock_hz must be a finite number from 1 to 1e+12, got 0; use 1",
        "Accelerator.cache.ways must divide entries=1024, got 3; use 2 or 4",
    ]


JSON_LIKE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from([f.name for f in dataclasses.fields(Accelerator)]),
                st.sampled_from(["rows", "columns", "capacity_bytes", "width_bits", "kind"]),
                st.text(max_size=5),
                st.integers(),
            ),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=20,
)


@given(JSON_LIKE)
def test_any_description_is_read_or_a_config_error(description):
    with pytest.raises(ConfigError):
        Accelerator.from_dict(description)


def test_presets_are_valid_named_and_fresh():
    designs = presets()
    assert list(designs) == [
        "dense_16x16",
        "columns_16x16",
        "difference_16x16",
        "gated_16x16",
        "listed_16x16",
        "ranging_16x16",
        "remembering_16x16",
        "reuse_16x16",
        "reuse_16x16_int8",
        "lanes_16x16",
        "tables_16x16",
        "merging_16x16",
        "predictor_16x16",
        "predictor_lanes_16x16",
        "dense_32x32",
        "reuse_32x32",
        "neighbour_32x32",
        "leader_32x32",
        "change_32x32",
        "motion_32x32",
        "every_64x64",
        "cicek_design_b",
        "focus_32x32",
    ]
    for name, design in designs.items():
        assert design.name == name
        assert design == preset(name)
        assert design.has_reuse == (not name.startswith("dense"))
        assert math.isclose(
            design.dram.bandwidth_bytes_per_cycle * design.clock_hz,
            12.8e9 if design.array.rows == 16 else 64e9,
        )
    designs.clear()
    assert preset("dense_16x16").name == "dense_16x16"


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        preset("reuse16x16")
    names = ", ".join(f"{name!r}" for name in presets())
    assert str(caught.value) == (
        f"preset name must be one of {names}, got 'reuse16x16'; use 'reuse_16x16'"
    )
    for odd in (None, 3, ["dense_16x16"], math.nan):
        with pytest.raises(ConfigError):
            preset(odd)


def test_without_reuse_keeps_the_dense_half():
    reuse = preset("reuse_16x16")
    dense = reuse.without_reuse()
    assert not dense.has_reuse
    assert dense.name == "reuse_16x16_dense"
    assert dense.array == reuse.array
    assert dense.without_reuse() == dense
    assert reuse.without_reuse("twin").name == "twin"
    longest = dataclasses.replace(reuse, name="n" * 200)
    assert len(longest.without_reuse().name) == 200
    with pytest.raises(ConfigError):
        reuse.without_reuse("")


def test_describing_hardware_needs_no_torch():
    import subprocess
    import sys

    check = "import accelerators, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
