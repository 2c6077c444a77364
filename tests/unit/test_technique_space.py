"""A technique for each group of layers, on hardware that fits it; dense designs among them."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from accelerators import ConfigError, preset, presets
from codesign.space.described import described_space
from codesign.space.grouping import groups_of
from codesign.space.technique_space import TechniqueSpace
from codesign.space.techniques import SHARING, found_techniques
from codesign.study.asking import design_key
from simulator import (
    KMeansReuse,
    LeaderReuse,
    LshReuse,
    NeighbourReuse,
    NoReuse,
    Together,
    VirtualPooling,
    techniques,
)
from simulator.policies import technique as catalogue
from simulator.timing.dense_baseline import best_dense
from tests.builders import matrix_layer
from workloads.traces.layer import Convolution, Gemm, Layer
from workloads.traces.trace import WorkloadTrace, _graph


def conv(name, channels, filters, size, kernel=3, images=2):
    """A convolution that keeps its size."""
    taps = kernel * kernel
    return Layer(
        name=name,
        kind="conv",
        gemm=Gemm(m=images * size * size, n=filters, k=channels * taps),
        images=images,
        row_images=images,
        convolution=Convolution(
            kernel=(kernel, kernel),
            stride=(1, 1),
            padding=(kernel // 2, kernel // 2),
            dilation=(1, 1),
        ),
        input_shape=(images, channels, size, size),
        output_shape=(images, filters, size, size),
        weights_are_parameters=True,
    )


LAYERS = (
    conv("first", 3, 16, 16),
    conv("stage1.0", 16, 16, 16),
    conv("stage1.1", 16, 16, 16),
    conv("stage2.0", 16, 32, 8),
    conv("stage2.1", 32, 32, 8),
    conv("stage2.side", 16, 32, 8, kernel=1),
    matrix_layer("answers", 2, 10, 2048, row_images=2),
)


@pytest.fixture(scope="module")
def trace():
    names = [layer.name for layer in LAYERS]
    return WorkloadTrace(layers=LAYERS, graph=_graph(LAYERS, list(pairwise(names))), images=2)


@pytest.fixture(scope="module")
def space(trace):
    return TechniqueSpace.for_techniques(trace, preset("reuse_16x16"), ("dense", "lsh"))


def choices_of(space, name):
    return next(p.choices for p in space.parameters if p.name == name)


def test_layers_of_a_kernel_and_a_stage_choose_together(space):
    assert dict(space.groups) == {
        "first": ("first",),
        "stage1.0+1": ("stage1.0", "stage1.1"),
        "stage2.0+1": ("stage2.0", "stage2.1"),
        "stage2.side": ("stage2.side",),
    }
    assert choices_of(space, "stage1.0+1.technique") == ("dense", "lsh")


def test_groups_are_made_as_asked_for():
    able = LAYERS[:-1]
    assert groups_of(able, "all", 8) == {"all": tuple(layer.name for layer in able)}
    # 256 rows an image x 16 x 144 against 64 x 32 x 288 MACs: both stages have the same.
    assert list(groups_of(able, "stage", 2)) == ["stage1.0+1", "stage2.0+1"]
    assert len(groups_of(able, "layer", 8)) == 6
    assert groups_of(able, "stage1.*, stage2.1", 8) == {
        "stage1.*": ("stage1.0", "stage1.1"),
        "stage2.1": ("stage2.1",),
    }
    with pytest.raises(ConfigError, match=r"each of some that no other took, got 'stage1.0'"):
        groups_of(able, "stage1.*,stage1.0", 8)


def test_a_first_layer_starts_dense_and_the_others_with_the_technique(space):
    start = space.start["start"]
    assert start["first.technique"] == "dense"
    _, policy = space.build(start)
    # `stage2.side` has a single tap.
    assert list(policy.policies) == ["stage1.0", "stage1.1", "stage2.0", "stage2.1"]
    wanted = LshReuse(
        hashes=24,
        length=64,
        scope="tile",
        tile_rows=128,
        look_once=True,
        order="channels_last",
    )
    assert policy.policies["stage2.1"] == wanted
    _, policy = space.build(start | {"stage2.side.technique": "lsh"})
    assert policy.policies["stage2.side"] == replace(wanted, length=16)  # its rows have 16 elements


def test_a_dense_design_has_no_reuse_units(space):
    design, policy = space.build(space.start["dense"])
    assert policy == NoReuse()
    assert not design.has_reuse
    assert (design.array.rows, design.array.columns) == (16, 16)


@pytest.mark.parametrize("base", ["reuse_16x16", "every_64x64"])
def test_the_fastest_dense_design_as_large_as_the_start_is_a_point_of_the_space(trace, base):
    """A base with every unit is larger than the start, which has those of one technique."""
    space = TechniqueSpace.for_techniques(trace, preset(base), ("dense", "lsh"))
    started, _ = space.build(space.start["start"])
    design, policy = space.build(space.start["dense_equal_area"])
    best, _ = best_dense(trace.layers, started)
    assert policy == NoReuse()
    assert replace(design, name=best.name) == best


def test_the_dense_start_of_lanes_is_the_fastest_of_their_dataflow(trace):
    base = preset("predictor_lanes_16x16")
    space = TechniqueSpace.for_techniques(trace, base, ("dense", "snapea"))
    started, _ = space.build(space.start["start"])
    design, policy = space.build(space.start["dense_equal_area"])
    best, timings = best_dense(trace.layers, started, dataflows=(base.array.dataflow,))
    assert policy == NoReuse()
    assert replace(design, name=best.name) == best
    # Reports stand beside the fastest of any.
    free, faster = best_dense(trace.layers, started)
    assert free.array.dataflow != base.array.dataflow
    assert sum(t.cycles for _, t in faster) < sum(t.cycles for _, t in timings)


def test_dense_designs_are_tried_among_the_first(space):
    assert list(space.start) == ["start", "dense", "dense_equal_area"]


def test_what_no_group_uses_is_told_in_one_way(space):
    dense = space.start["dense"]
    other = dense | {"stage2.side.lsh.hashes": 8, "lsh.look_once": False, "pass_columns": 64}
    assert space.settled(other) == space.settled(dense)
    assert design_key(space, other) == design_key(space, dense)
    used = other | {"stage2.side.technique": "lsh"}
    assert space.settled(used) == used
    assert design_key(space, used) != design_key(space, dense)


def test_conditions_say_when_a_parameter_has_an_effect(space):
    condition = space.conditions["lsh.length"]
    assert condition.on == tuple(f"{group}.technique" for group in space.groups)
    assert space.conditions["first.lsh.hashes"].on == ("first.technique",)
    assert condition.values == ("lsh",)
    assert "centroid_buffer.times" in space.conditions
    assert "weight_buffer.times" not in space.conditions
    always = space.narrowed({"first.technique": ("lsh",)})
    assert not {"lsh.length", "first.lsh.hashes"} & {*always.conditions}


def test_other_hardware_decides_as_before(space):
    start = space.start["start"]
    _, policy = space.build(start)
    for parameter in space.parameters:
        for value in parameter.choices:
            if value == start[parameter.name] or parameter.name in space.of_decisions:
                continue
            _, other = space.build(start | {parameter.name: value})
            assert other.describe() == policy.describe(), parameter.name


def test_any_field_may_be_searched_and_one_group_may_differ(space):
    with pytest.warns(UserWarning, match="weight_buffer.kib|cache.entries"):
        wider = space.narrowed(
            {
                "lsh.scope": ("tile", "image"),
                "stage2.side.lsh.hashes": (24, 40),
                "cache.entries": (64,),
                "weight_buffer.kib": (7, 9),
            }
        )
    values = wider.start["start"] | {"stage2.side.lsh.hashes": 40, "lsh.scope": "image"}
    values |= {"stage2.side.technique": "lsh"}
    design, policy = wider.build(values)
    assert policy.policies["stage2.side"].hashes == 40
    assert policy.policies["stage2.1"].hashes == 24
    assert policy.policies["stage2.1"].tile_rows is None  # only tiles have a height
    assert design.cache.entries == 64
    assert design.weight_buffer.capacity_bytes == 9 * 1024  # nearest to the base's


def test_a_buffer_is_so_many_times_what_its_tiles_need(space):
    start = space.start["start"]
    once, _ = space.build(start)
    twice, _ = space.build(start | {"output_buffer.times": 2})
    assert twice.output_buffer.capacity_bytes == 2 * once.output_buffer.capacity_bytes


def test_sums_without_data_are_taken_to_be_as_large_as_can_be(space):
    # k = 2048: 1 + ceil(log2(2048 x 127 x 127 + 1)) = 1 + 25 bits
    assert choices_of(space, "accumulator_bits") == (32,)


def test_the_space_survives_json(space):
    again = described_space(json.loads(json.dumps(space.to_dict())))
    assert again.to_dict() == space.to_dict()
    assert again.workload == space.workload
    start = space.start["start"]
    assert again.build(start) == space.build(start)


def test_a_technique_is_an_entry(trace, monkeypatch):
    """One beside another: each layer has the policy of its own, the design both's units."""
    k_means = replace(
        techniques()["k_means"],
        units=("centroid_buffer", "reconstructor"),
        choices={"clusters": (16, 32), "length": (16, 32)},
        start={"clusters": 16, "length": 16},
    )
    monkeypatch.setitem(catalogue._KNOWN, k_means.name, k_means)
    space = TechniqueSpace.for_techniques(
        trace, preset("reuse_16x16"), ("lsh", "k_means"), grouping="all"
    )
    assert choices_of(space, "all.technique") == ("dense", "lsh", "k_means")
    values = space.start["start"] | {"all.technique": "k_means", "k_means.clusters": 32}
    design, policy = space.build(values)
    assert policy.policies["stage2.1"] == KMeansReuse(clusters=32, length=16)
    assert design.front_end is None and design.reconstructor is not None
    assert space.is_idle("all.lsh.hashes", values) and not space.is_idle("k_means.clusters", values)


@pytest.mark.parametrize("name", sorted(SHARING))
def test_a_design_has_the_units_of_its_technique_alone(trace, name):
    technique = SHARING[name]
    base = next(
        design
        for design in presets().values()
        if all(unit in design.units for each in SHARING.values() for unit in each.units)
    )
    space = TechniqueSpace.for_techniques(trace, base, (name,), grouping="all")
    design, policy = space.build(space.start["start"])
    exploiting = {unit for unit in design.units if design.parts()[unit].exploits}
    assert exploiting == set(technique.units)
    assert all(isinstance(each, technique.policy) for each in policy.policies.values())


def test_what_is_no_technique_is_refused(trace):
    with pytest.raises(
        ConfigError, match=r"must be of dense, .*lsh, .*got 'lhs' \(str\); use 'lsh'"
    ):
        found_techniques(("dense", "lhs"))
    with pytest.raises(ConfigError, match=r"with one beside dense, got \('dense',\)"):
        found_techniques(("dense",))
    with pytest.raises(ConfigError, match=r"units of technique 'lsh'.*'dense_16x16' without"):
        TechniqueSpace.for_techniques(trace, preset("dense_16x16"), ("lsh",))


def test_groups_choose_among_all_techniques_on_a_base_with_every_unit(trace):
    names = ("dense", "leaders", "neighbours", "lsh")
    space = TechniqueSpace.for_techniques(trace, preset("every_64x64"), names)
    # Rows are up to 288 long.
    assert choices_of(space, "leaders.length") == (32, 64, 128)
    start = space.start["start"]
    assert (
        start["stage1.0+1.technique"] == "leaders" and start["stage1.0+1.leaders.tolerance"] == 0.2
    )
    chosen = dict(zip((f"{name}.technique" for name in space.groups), names, strict=True))
    design, policy = space.build(start | chosen)
    kinds = {name: type(each) for name, each in policy.policies.items()}
    assert kinds == {
        "stage1.0": LeaderReuse,
        "stage1.1": LeaderReuse,
        "stage2.0": NeighbourReuse,
        "stage2.1": NeighbourReuse,
        "stage2.side": LshReuse,
    }
    # L is cut to a tap's 16 channels.
    assert design.leader_table.max_length == 16
    assert {"front_end", "cache", "neighbour_matcher", "reconstructor"} < {*design.units}
    design, _ = space.build(start)
    looking = {"front_end", "cache", "neighbour_matcher", "leader_table"}
    assert looking & {*design.units} == {"leader_table"}
    lacking = "'neighbours', got 'leader_32x32' without neighbour_matcher"
    with pytest.raises(ConfigError, match=lacking):
        TechniqueSpace.for_techniques(trace, preset("leader_32x32"), names)


def test_groups_choose_pairs_and_the_network_what_is_above_layers(trace):
    names = ("leaders", "vip+leaders", "dropped_columns")
    space = TechniqueSpace.for_techniques(trace, preset("every_64x64"), names, grouping="all")
    assert choices_of(space, "all.technique") == ("dense", *names)
    values = space.start["start"] | {"all.technique": "vip+leaders"}
    design, policy = space.build(values)
    pair = policy.policies["stage2.1"]
    assert isinstance(pair, Together) and isinstance(pair.first, VirtualPooling)
    assert isinstance(pair.second, LeaderReuse)
    assert {"address_list", "leader_table", "reconstructor"} <= {*design.units}
    # rows of the longest layer
    assert design.address_list.entries >= max(layer.gemm.m for layer in trace.layers)
    assert space.reuse_texts(values) == {"all": "vip 2 + leaders 0.2"}
    assert not space.is_idle("leaders.length", values) and not space.is_idle(
        "all.vip.stride", values
    )
    only = values | {"all.technique": "dropped_columns"}
    assert space.is_idle("leaders.length", only)
    assert design_of(space, only).leader_table is None
    assert space.techniques_in(values) == {"vip", "leaders"}
    again = described_space(json.loads(json.dumps(space.to_dict())))
    assert again.build(values) == space.build(values)


def design_of(space, values):
    design, _ = space.build(values)
    return design


def test_a_dial_of_all_groups_is_named_without_one(trace):
    space = TechniqueSpace.for_techniques(trace, preset("every_64x64"), ("leaders",))
    with pytest.warns(UserWarning, match="starts from another"):
        found = space.narrowed({"leaders.tolerance": (0.1, 0.3)})
    for group in space.groups:
        assert choices_of(found, f"{group}.leaders.tolerance") == (0.1, 0.3)


def test_a_unit_that_a_technique_can_do_without_is_tried(trace):
    space = TechniqueSpace.for_techniques(
        trace, preset("every_64x64"), ("changes", "leaders"), grouping="all"
    )
    assert choices_of(space, "state_buffer.used") == (False, True)
    start = space.start["start"] | {"all.technique": "changes"}
    assert design_of(space, start).state_buffer is None
    used = start | {"state_buffer.used": True}
    assert design_of(space, used).state_buffer is not None and not space.is_idle(
        "state_buffer.used", used
    )
    leading = used | {"all.technique": "leaders"}
    assert design_of(space, leading).state_buffer is None
    assert space.is_idle("state_buffer.used", leading)
