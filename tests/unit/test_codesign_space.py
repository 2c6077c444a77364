import warnings
from dataclasses import replace
from itertools import pairwise

import pytest

from accelerators import Accelerator, ConfigError, preset
from codesign import DesignSpace, Parameter
from simulator import LshReuse, NoReuse, PerLayer
from simulator.timing.dense_baseline import best_dense
from tests.builders import cifarnet_conv2, matrix_layer
from workloads.traces.layer import Convolution, Gemm, Layer
from workloads.traces.trace import WorkloadTrace, _graph


def trace_of(*layers):
    names = [layer.name for layer in layers]
    return WorkloadTrace(layers=layers, graph=_graph(layers, list(pairwise(names))), images=100)


def cifarnet_conv1(images=100):
    return Layer(
        name="conv1",
        kind="conv",
        gemm=Gemm(m=1024 * images, n=64, k=75),
        images=images,
        row_images=images,
        convolution=Convolution(kernel=(5, 5), stride=(1, 1), padding=(2, 2), dilation=(1, 1)),
        input_shape=(images, 3, 32, 32),
        output_shape=(images, 64, 32, 32),
        weights_are_parameters=True,
    )


@pytest.fixture
def cifarnet():
    # Linear layers have one row for each image: nothing to share.
    return trace_of(
        cifarnet_conv1(), cifarnet_conv2(), matrix_layer("fc3", 100, 384, 4096, row_images=100)
    )


@pytest.fixture
def space(cifarnet):
    return DesignSpace.for_workload(cifarnet, preset("reuse_16x16"))


def choices_of(space, name):
    return next(p.choices for p in space.parameters if p.name == name)


def test_layers_are_those_with_rows_to_share(space, cifarnet):
    assert space.layers == ("conv1", "conv2")
    only = DesignSpace.for_workload(cifarnet, preset("reuse_16x16"), top=1)
    assert only.layers == ("conv2",)  # 100 x 256 x 64 x 1600 MACs against 100 x 1024 x 64 x 75


def test_lengths_are_divisors_and_common_ones(space):
    assert choices_of(space, "conv1.length") == (5, 8, 10, 15, 16, 25, 32)
    assert choices_of(space, "conv2.length") == (4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64)
    tiny = DesignSpace.for_workload(
        trace_of(matrix_layer("fc", 300, 8, 3, row_images=100)), preset("reuse_16x16")
    )
    assert choices_of(tiny, "fc.length") == (3,)


def test_every_layer_may_run_dense(space):
    assert choices_of(space, "conv1.reuse") == choices_of(space, "conv2.reuse") == (False, True)


@pytest.mark.parametrize("name", ["reuse_16x16", "reuse_16x16_int8", "reuse_32x32"])
def test_the_fastest_dense_design_of_the_bases_area_is_tried_second(cifarnet, name):
    space = DesignSpace.for_workload(cifarnet, preset(name))
    assert [*space.start][1:] == ["dense_equal_area"]
    values = space.start["dense_equal_area"]
    assert space.decode(space.encode(values)) == values
    design, policy = space.build(values)
    best, _ = best_dense(cifarnet.layers, preset(name))
    assert policy == NoReuse() and replace(design, name=best.name) == best


def test_start_is_the_papers_setting_on_the_base_design(space):
    assert next(iter(space.start)) == "paper"
    base = preset("reuse_16x16")
    accelerator, policy = space.build(space.start["paper"])
    assert policy == PerLayer(
        {"conv1": LshReuse(hashes=15, length=5), "conv2": LshReuse(hashes=10, length=10)}
    )
    # The front-end is as large as the policy needs, all else is the base design.
    assert accelerator.front_end == replace(base.front_end, max_hashes=15, max_length=10)
    assert replace(accelerator, name=base.name, front_end=base.front_end) == base


@pytest.mark.parametrize("name", ["reuse_16x16", "reuse_16x16_int8", "reuse_32x32"])
def test_every_base_lies_in_its_space(cifarnet, name):
    base = preset(name)
    space = DesignSpace.for_workload(cifarnet, base)
    values = space.start["paper"]
    assert space.decode(space.encode(values)) == values
    accelerator, _ = space.build(values)
    assert replace(accelerator, name=base.name, front_end=base.front_end) == base


def test_another_network_starts_from_the_usual_setting():
    space = DesignSpace.for_workload(trace_of(cifarnet_conv2()), preset("reuse_16x16"))
    assert next(iter(space.start)) == "start"
    assert space.start["start"]["conv2.hashes"] == 10


def test_units_follow_what_is_chosen(space):
    values = space.start["paper"] | {
        "conv1.reuse": False,
        "conv2.hashes": 7,
        "conv2.length": 25,
        "front_end.lanes": 4,
        "front_end.projection": "int8",
        "reconstructor.sums_per_cycle": 128,
        "array.columns": 64,
        "centroid_buffer.kib": 32,
    }
    accelerator, policy = space.build(values)
    assert policy == PerLayer({"conv2": LshReuse(hashes=7, length=25, projection="int8")})
    front_end = accelerator.front_end
    assert (front_end.max_hashes, front_end.max_length, front_end.lanes) == (7, 25, 4)
    assert (accelerator.reconstructor.ports, accelerator.reconstructor.width) == (2, 64)
    # Four lanes read sub-vectors of 25 bytes; the 16 rows of the array would need 16.
    buffer = accelerator.activation_buffer
    assert (buffer.width_bits, buffer.ports) == (25 * 8, 4)
    # A port reads a row's 64 results of 32 bits, reads their sums and writes them back.
    buffer = accelerator.centroid_buffer
    assert (buffer.width_bits, buffer.ports, buffer.capacity_bytes) == (64 * 32, 2, 32 * 1024)
    assert accelerator.output_buffer.width_bits == 64 * 32
    assert accelerator.output_buffer.ports == 4
    assert accelerator.weight_buffer.width_bits == 64 * 8


def test_output_buffer_is_at_least_as_wide_as_the_array(space):
    values = space.start["paper"] | {"reconstructor.sums_per_cycle": 16, "array.columns": 64}
    accelerator, _ = space.build(values)
    assert accelerator.output_buffer.width_bits == 64 * 32
    assert accelerator.centroid_buffer.width_bits == 16 * 32


def test_every_combination_of_the_hardware_choices_is_valid(space):
    start = space.start["paper"]
    for parameter in space.parameters:
        for value in parameter.choices:
            accelerator, _ = space.build(start | {parameter.name: value})
            assert isinstance(accelerator, Accelerator)


def test_space_survives_json(space):
    import json

    again = DesignSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again.to_dict() == space.to_dict()
    assert again.base == space.base and again.parameters == space.parameters


def test_base_without_reuse_units_is_refused(cifarnet):
    with pytest.raises(ConfigError, match=r"base must have reuse units, got 'dense_16x16'"):
        DesignSpace.for_workload(cifarnet, preset("dense_16x16"))


def test_workload_without_rows_to_share_is_refused():
    with pytest.raises(ConfigError, match=r"several rows per image.*got fc"):
        DesignSpace.for_workload(
            trace_of(matrix_layer("fc", 100, 10, 64, row_images=100)), preset("reuse_16x16")
        )


def test_value_outside_the_choices_is_refused():
    parameter = Parameter(name="array.rows", choices=(8, 16))
    assert parameter.decode(parameter.encode(16)) == 16
    with pytest.raises(ConfigError, match=r"'array.rows' must be one of \(8, 16\), got 12"):
        parameter.encode(12)


def test_decisions_depend_on_their_parameters_alone(space):
    """Other hardware leaves the policy as it is; each parameter of decisions changes it."""
    start = next(iter(space.start.values()))
    _, policy = space.build(start)
    assert "front_end.projection" in space.of_decisions
    for parameter in space.parameters:
        for value in parameter.choices:
            _, other = space.build(start | {parameter.name: value})
            is_same = value == start[parameter.name] or parameter.name not in space.of_decisions
            assert (other.describe() == policy.describe()) == is_same


def test_conditions_tell_when_a_parameter_has_an_effect(space):
    start = next(iter(space.start.values()))
    assert set(space.conditions) >= {"conv1.hashes", "conv1.length"}
    for name, condition in space.conditions.items():
        reuse = next(p for p in space.parameters if p.name == condition.on[0])
        if False not in reuse.choices:
            continue
        parameter = next(p for p in space.parameters if p.name == name)
        idle = start | {condition.on[0]: False}
        designs = set()
        for value in parameter.choices:
            settled = space.settled(idle | {name: value})
            assert space.encode(settled)[name] == condition.otherwise
            accelerator, policy = space.build(idle | {name: value})
            designs.add(str(accelerator.to_dict()) + str(policy.describe()))
        assert len(designs) == 1
        assert space.settled(start | {name: parameter.choices[0]})[name] == parameter.choices[0]


def test_a_parameter_that_no_design_has_is_refused(space):
    more = Parameter(name="array.frobnication", choices=(1, 2))
    start = {"paper": space.start["paper"] | {more.name: 1}}
    with pytest.raises(ConfigError) as caught:
        replace(space, parameters=(*space.parameters, more), start=start)
    (told,) = caught.value.violations
    assert "must be what a design is built of, got 'array.frobnication'" in told
    assert "did you mean 'array.fold_timing'?" in told or "choose of array.rows" in told
    near = replace(more, name="front_end.lane")
    with pytest.raises(ConfigError, match=r"'front_end\.lane'; did you mean 'front_end\.lanes'\?"):
        replace(space, parameters=(*space.parameters, near))


def test_a_space_has_every_parameter_once_with_a_start(space):
    first, *others = space.parameters
    with pytest.raises(ConfigError, match=f"must hold {first.name!r}, got none"):
        replace(space, parameters=tuple(others))
    with pytest.raises(ConfigError, match=f"must name a parameter once, got {first.name!r} again"):
        replace(space, parameters=(first, first, *others))
    broken = {"paper": dict(list(space.start["paper"].items())[1:])}
    with pytest.raises(ConfigError, match=r"start\['paper'\] must have a value for each parameter"):
        replace(space, start=broken)


def test_a_start_outside_the_choices_is_told(space):
    rows = space.start["dense_equal_area"]["array.rows"]
    with pytest.warns(UserWarning, match=r"not among the choices: array\.rows 16 -> 32$"):
        moved = space.narrowed({"array.rows": (32, rows)})
    assert moved.start["start"] == space.start["paper"] | {"array.rows": 32}
    told = rf"the start 'dense_equal_area', .* the choices: array\.rows {rows} -> 32$"
    with pytest.warns(UserWarning, match=told):
        space.narrowed({"array.rows": (16, 32)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = space.narrowed({"array.rows": (16, rows)})
    assert same.start == space.start
