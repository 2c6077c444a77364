"""Whatever a user gives to a constructor, it is taken, or refused with the documented error."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

from accelerators import (
    Accelerator,
    CentroidCache,
    ConfigError,
    Dram,
    LshFrontEnd,
    Reconstructor,
    SramBuffer,
    SystolicArray,
    cost_table,
    dram_energy_pj_per_byte,
    preset,
    processor_preset,
)
from codesign import Constraints, DesignSpace, Objective, Parameter, StudyPlan
from codesign.cli.terminal import table
from codesign.report.choices import Constraint
from simulator import (
    ClusterCache,
    HyperCubeReuse,
    KMeansReuse,
    LshReuse,
    NoReuse,
    PerforationReuse,
    PerLayer,
    StreamMemory,
    decide,
    load_memory,
    save_memory,
    simulate,
)
from tests.builders import matrix_layer
from tests.fuzzing import NASTY_VALUES, nested
from workloads import Convolution, Gemm, Layer, TraceError, WorkloadTrace
from workloads.errors import LONGEST_MESSAGE, InputError, plain
from workloads.traces.layer import Quantisation
from workloads.training.plan import TrainingPlan
from workloads.training.tasks import LaneDetection, SceneParsing

CONVOLUTION = Convolution(kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
LAYER = Layer(
    name="conv",
    kind="conv",
    gemm=Gemm(m=32, n=4, k=18),
    images=2,
    row_images=2,
    convolution=CONVOLUTION,
    input_shape=(2, 2, 4, 4),
    output_shape=(2, 4, 4, 4),
    weights_are_parameters=True,
    quantisation=Quantisation(scale=0.5, zero_point=3),
)
SHAPES = WorkloadTrace.from_gemms([("a", Gemm(m=8, n=4, k=6)), ("b", Gemm(m=8, n=4, k=4))])
TRACE = WorkloadTrace(
    layers=(LAYER,),
    graph=WorkloadTrace.from_gemms([("conv", LAYER.gemm)]).graph,
    images=2,
    inputs=(np.zeros((2, 2, 4, 4)),),
    labels=np.array([0, 1]),
)
DESIGN = preset("reuse_16x16")
SPACE = DesignSpace.for_workload(SHAPES, DESIGN, top=1)


def run_on_small_layer(policy: Any) -> object:
    """A policy that was accepted decides on activations, and tells what it is."""
    layer = matrix_layer("fc", m=12, n=3, k=6, row_images=2)
    rows = np.random.default_rng(0).standard_normal((1, 12, 6)).astype(np.float32)
    policy.check_layers([layer])
    state = policy.calibrate(layer, rows, lambda: np.ones((1, 6, 3), np.float32))
    return policy.decide(layer, rows, state), policy.describe(), repr(policy)


def run_trace(trace: WorkloadTrace) -> object:
    simulate(dataclasses.replace(trace, files=None), DESIGN, NoReuse()).to_dict()
    return repr(trace), trace.macs, trace.score


def run_design(design: Accelerator) -> object:
    assert Accelerator.from_dict(design.to_dict()) == design
    return design.to_python(), simulate(SHAPES, design, NoReuse()).to_dict()


def in_design(name: str) -> Callable[[Any], object]:
    return lambda part: run_design(dataclasses.replace(DESIGN, **{name: part}))


def run_space(space: DesignSpace) -> object:
    """A space that was accepted is written and read, and its start can be built."""
    again = DesignSpace.from_dict(space.to_dict())
    for values in again.start.values():
        again.encode(values)
    return again.distributions


def run_layer(layer: Layer) -> object:
    assert Layer.from_dict(layer.to_dict()) == layer
    trace = WorkloadTrace.from_gemms([(layer.name, layer.gemm)])
    return simulate(trace, DESIGN, NoReuse()).to_dict(), repr(layer)


STREAM = LshReuse(hashes=4, length=3, scope="stream", thresholds="zero")
BUFFER = SramBuffer(capacity_bytes=65536, width_bits=4096, ports=4)
MEASURED = {"area_mm2": 1.0, "energy_uj_per_image": 1.0, "latency_ms_per_image": 1.0}
# A valid instance, and what a user does next with one that was accepted.
CASES: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "Gemm": (Gemm(m=8, n=4, k=6, count=2), lambda gemm: (gemm.macs, repr(gemm))),
    "Convolution": (CONVOLUTION, lambda geometry: (geometry.output_size((9, 9)), repr(geometry))),
    "Quantisation": (
        Quantisation(scale=0.5, zero_point=3),
        lambda grid: grid.steps(np.ones(3, np.float32)),
    ),
    "Layer": (LAYER, run_layer),
    "WorkloadTrace": (TRACE, run_trace),
    "Accelerator": (DESIGN, run_design),
    "SystolicArray": (DESIGN.array, in_design("array")),
    "SramBuffer": (BUFFER, in_design("activation_buffer")),
    "Dram": (DESIGN.dram, in_design("dram")),
    "LshFrontEnd": (DESIGN.front_end, in_design("front_end")),
    "CentroidCache": (DESIGN.cache, in_design("cache")),
    "Reconstructor": (DESIGN.reconstructor, in_design("reconstructor")),
    "Processor": (
        processor_preset("Pi 4B"),
        lambda chip: (chip.power_w(1), chip.macs_per_cycle("fp16"), repr(chip)),
    ),
    "LshReuse": (LshReuse(hashes=4, length=3, seed=1), run_on_small_layer),
    "KMeansReuse": (KMeansReuse(clusters=2, length=3), run_on_small_layer),
    "HyperCubeReuse": (HyperCubeReuse(bins=2, dimensions=2, length=3), run_on_small_layer),
    "PerforationReuse": (PerforationReuse(computed=0.5), run_on_small_layer),
    "PerLayer": (PerLayer({"*": LshReuse(hashes=4, length=3)}), run_on_small_layer),
    "ClusterCache": (
        ClusterCache(entries=16, ways=4),
        lambda cache: run_on_small_layer(dataclasses.replace(STREAM, cache=cache)),
    ),
    "StreamMemory": (
        StreamMemory(policy=STREAM.describe(), states={}, tables={}),
        lambda memory: memory.check_policy(STREAM.describe()),
    ),
    "Objective": (
        Objective(name="x", words="x", unit="1", maximise=True),
        lambda x: (x.axis, x.told(1.0), x.rule, x.hoped(1.0), Objective(**x.to_dict()) == x),
    ),
    "Parameter": (
        Parameter(name="array.rows", choices=(8, 16)),
        lambda parameter: (parameter.distribution, parameter.encode(parameter.choices[0])),
    ),
    "DesignSpace": (SPACE, run_space),
    "Constraints": (
        Constraints(area_mm2=2.0, accuracy_loss=0.01),
        lambda limits: limits.reason(
            limits.excess({"accuracy": 0.5}, {"designs": {"reuse": MEASURED}}, {"accuracy": 1.0})
        ),
    ),
    "Constraint": (Constraint(quantity="accuracy", bound=0.5), repr),
    "StudyPlan": (StudyPlan(), lambda plan: StudyPlan.from_dict(plan.to_dict())),
    "TrainingPlan": (TrainingPlan(), lambda plan: (plan.learning_rate_at(0.5), repr(plan))),
    "SceneParsing": (
        SceneParsing(classes=("a", "b"), class_weights=(1.0, 2.0)),
        lambda task: task.score(),
    ),
    "LaneDetection": (
        LaneDetection(class_weights=(1.0, 2.0), tolerance=1),
        lambda task: task.score(),
    ),
}
DOCUMENTED = (ConfigError, InputError)


def told_well(error: Exception) -> None:
    """A message can be printed and is short; an error that lists rules has one a line."""
    text = plain(str(error))
    assert text.strip()
    text.encode()
    assert len(text) <= LONGEST_MESSAGE


def attempt(make: Callable[[], Any], use: Callable[[Any], object], what: str) -> bool:
    """Whether a value was taken and could be used; anything but a documented error fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(make())
    except DOCUMENTED as error:
        told_well(error)
        return False
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__} is no documented error") from error
    return True


def changed(valid: Any, values: dict[str, str]) -> Callable[[], Any]:
    """A constructor's call with some fields given nasty values, by their names."""
    given = {
        field.name: getattr(valid, field.name) for field in dataclasses.fields(valid) if field.init
    }
    return lambda: type(valid)(
        **given | {name: NASTY_VALUES[key]() for name, key in values.items()}
    )


def field_names(valid: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(valid) if field.init]


# An iterable without an end is one that a user must stop.
NAMES = [name for name in NASTY_VALUES if name != "endless"]


@pytest.mark.parametrize("case", CASES)
def test_the_valid_instance_is_taken(case):
    valid, use = CASES[case]
    if case != "PerforationReuse":  # of convolutions only
        assert attempt(lambda: valid, use, case)


@pytest.mark.parametrize("case", CASES)
def test_one_field_of_any_value(case):
    valid, use = CASES[case]
    random = Random(case)
    for field in field_names(valid):
        # The whole list is the slow test's: a sample that differs from field to field suffices.
        for name in random.sample(NAMES, 16):
            attempt(changed(valid, {field: name}), use, f"{case}({field}={name})")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_field_of_every_value_and_pairs(case):
    valid, use = CASES[case]
    random = Random(case)
    fields = field_names(valid)
    for field in fields:
        for name in NAMES:
            attempt(changed(valid, {field: name}), use, f"{case}({field}={name})")
    for _ in range(300):
        values = {
            field: random.choice(NAMES) for field in random.sample(fields, min(2, len(fields)))
        }
        attempt(changed(valid, values), use, f"{case}({values})")


CALLS: dict[str, Callable[[Any], object]] = {
    "simulate.trace": lambda value: simulate(value, DESIGN, NoReuse()),
    "simulate.accelerator": lambda value: simulate(SHAPES, value, NoReuse()),
    "simulate.policy": lambda value: simulate(SHAPES, DESIGN, value),
    "simulate.engine": lambda value: simulate(SHAPES, DESIGN, NoReuse(), engine=value),
    "WorkloadTrace.load": WorkloadTrace.load,
    "WorkloadTrace.from_gemms": WorkloadTrace.from_gemms,
    "WorkloadTrace.from_gemms pair": lambda value: WorkloadTrace.from_gemms([value]),
    "WorkloadTrace.from_gemms name": lambda value: WorkloadTrace.from_gemms(
        [(value, Gemm(m=1, n=1, k=1))]
    ),
    "WorkloadTrace.layer": SHAPES.layer,
    "WorkloadTrace.rows": SHAPES.rows,
    "Layer.from_dict": Layer.from_dict,
    "Layer.from_dict gemm": lambda value: Layer.from_dict({**LAYER.to_dict(), "gemm": value}),
    "Layer.from_dict convolution": lambda value: Layer.from_dict(
        {**LAYER.to_dict(), "convolution": value}
    ),
    "Accelerator.from_dict": Accelerator.from_dict,
    "Accelerator.from_dict array": lambda value: Accelerator.from_dict(
        {**DESIGN.to_dict(), "array": value}
    ),
    "Accelerator.from_dict key": lambda value: Accelerator.from_dict(
        {**DESIGN.to_dict(), **({value: 1} if isinstance(value, str) else {})}
    ),
    "Accelerator.without_reuse": lambda value: value is not None and DESIGN.without_reuse(value),
    "DesignSpace.from_dict": DesignSpace.from_dict,
    "DesignSpace.for_workload top": lambda value: DesignSpace.for_workload(
        SHAPES, DESIGN, top=value
    ),
    "DesignSpace.for_workload base": lambda value: DesignSpace.for_workload(SHAPES, value),
    "Parameter.encode": CASES["Parameter"][0].encode,
    "StudyPlan.from_dict": StudyPlan.from_dict,
    "StudyPlan.from_dict search": lambda value: StudyPlan.from_dict(
        {**StudyPlan().to_dict(), "search": value}
    ),
    "preset": preset,
    "processor_preset": processor_preset,
    "cost_table": cost_table,
    "CostTable.energy_pj component": lambda value: DESIGN_TABLE.energy_pj(value, "add", bits=8),
    "CostTable.energy_pj action": lambda value: DESIGN_TABLE.energy_pj("int_adder", value, bits=8),
    "CostTable.energy_pj bits": lambda value: DESIGN_TABLE.energy_pj(
        "int_adder", "add", bits=value
    ),
    "CostTable.area_mm2 size": lambda value: DESIGN_TABLE.area_mm2(
        "sram", size_bytes=value, width_bits=64
    ),
    "dram_energy_pj_per_byte": dram_energy_pj_per_byte,
    "Processor.macs_per_cycle": processor_preset("Pi 4B").macs_per_cycle,
    "save_memory": lambda value: save_memory(value, "nowhere/memory"),
    "load_memory": load_memory,
}
DESIGN_TABLE = cost_table("hwcomponents_45nm")


@pytest.mark.parametrize("call", CALLS)
def test_an_argument_of_any_value(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        attempt(NASTY_VALUES[name], CALLS[call], f"{call}({name})")


def test_a_number_of_any_integer_type_is_taken_as_before():
    made = Gemm(m=np.int64(8), n=np.uint8(4), k=np.array(6))
    assert made == Gemm(m=8, n=4, k=6) and type(made.m) is int
    with pytest.raises(TraceError, match="must be a whole number of at least 1, got True"):
        Gemm(m=True, n=1, k=1)


def test_limits_are_told_with_their_reason():
    assert Gemm(m=2**24, n=2**24, k=8).macs == 2**51
    with pytest.raises(TraceError, match=r"macs .* must be at most 2251799813685248, got"):
        Gemm(m=2**24, n=2**24, k=9)
    with pytest.raises(TraceError, match=r"n must be a whole number of at most 2251799813685248"):
        Gemm(m=1, n=10**30, k=1)


def test_one_number_for_all_dimensions_is_refused_with_the_way_to_write_it():
    with pytest.raises(TraceError, match=r"stride must be one to three .*, got 1; .*\(1, 1\)"):
        Convolution(kernel=(3, 3), stride=1, padding=1, dilation=1)


@pytest.mark.parametrize("name", ["", "a\udc80", "a\nb", "\x1b[1m", "x" * 501, 7, None])
def test_a_layer_has_a_name_that_can_be_shown(name):
    with pytest.raises(TraceError, match="name must be a non-empty text"):
        WorkloadTrace.from_gemms([(name, Gemm(m=1, n=1, k=1))])


def test_a_provenance_is_plain_json():
    for value in (nested(40), float("nan"), 10**30, {1: 2}, b"x", "\udc80"):
        with pytest.raises(TraceError, match="provenance must hold JSON values"):
            dataclasses.replace(SHAPES, provenance={"note": value})
    kept = {"note": [1, 2.5, None, {"a": "b"}], "seed": 2**63}
    assert dataclasses.replace(SHAPES, provenance=kept).provenance == kept


def test_what_was_replaced_is_what_is_saved(tmp_path):
    changed = dataclasses.replace(SHAPES, provenance={"model": "mine"})
    again = WorkloadTrace.load(changed.save(tmp_path / "trace"))
    assert again.provenance == {"model": "mine"} and again.layers == SHAPES.layers


def test_a_stream_memory_of_another_kind_is_refused():
    layer = matrix_layer("fc", m=12, n=3, k=6)
    rows = np.random.default_rng(0).standard_normal((1, 12, 6)).astype(np.float32)
    _, memory = STREAM.decide_next(layer, rows, {}, None)
    STREAM.decide_next(layer, rows, {}, memory)
    for name in memory:
        for other in (
            memory[name].astype(np.float64),
            memory[name][..., None],
            np.full_like(memory[name], 2**62),
            memory[name][:0],
        ):
            broken = {**memory, name: other}
            same = other.dtype == memory[name].dtype and np.array_equal(other, memory[name])
            if same or name in ("uses", "clocks", "random", "batches", "representatives"):
                continue
            with pytest.raises(ConfigError, match="memory of layer 'fc' must be"):
                STREAM.decide_next(layer, rows, {}, broken)
    with pytest.raises(ConfigError, match="memory of layer 'fc' must be"):
        STREAM.decide_next(layer, rows, {}, {})


def test_decisions_take_no_other_things():
    for argument in ("policy", "calibration", "memory", "model"):
        for name in NAMES:
            if NASTY_VALUES[name]() is None:
                continue
            given: dict[str, Any] = {"trace": SHAPES, "policy": NoReuse()}
            given[argument] = NASTY_VALUES[name]()
            attempt(
                lambda given=given: given, lambda kw: decide(**kw), f"decide({argument}={name})"
            )


def test_a_layer_s_own_name_is_its_pattern():
    layer = matrix_layer("conv[0]", m=12, n=3, k=6)
    policy = PerLayer({"conv[0]": LshReuse(hashes=4, length=3)})
    policy.check_layers([layer])
    assert policy.applies_to(layer)


def test_a_name_that_looks_like_markup_is_printed_as_it_is(capsys):
    column = {"name": "[bold]Layer", "unit": "", "text": True, "key": "layer"}
    table([column], [{"layer": "[/x]conv[red]"}])
    printed = capsys.readouterr().out
    assert "[/x]conv[red]" in printed and "[bold]Layer" in printed


def test_parts_that_are_no_parts_are_refused():
    for kind in (SystolicArray, SramBuffer, Dram, LshFrontEnd, CentroidCache, Reconstructor):
        with pytest.raises(ConfigError, match="Accelerator"):
            dataclasses.replace(DESIGN, array=kind)
