"""Cycles, actions and bytes of every kind of decisions, derived by hand."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest

from accelerators import Accelerator, ConfigError, Reconstructor
from accelerators.rules import integer, part
from accelerators.units import AddressList, Item, Unit
from simulator import Decisions, ReuseRun, simulate
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.evidence import Evidence
from simulator.decisions.frames import KEEP, RUN, FrameDecisions
from simulator.decisions.left import layer_of_images
from simulator.decisions.rows import FilledRows, KeptRows
from simulator.decisions.tokens import TokenPlan
from simulator.results.costs import energy_by_part
from simulator.results.stored import summary_problems
from simulator.timing.choosing import AS_FAST
from simulator.timing.dataflows.dataflow import Dataflow
from simulator.timing.dataflows.dataflow import register as register_dataflow
from simulator.timing.engines.engine import COMPILED, EVENT
from simulator.timing.layer import LayerTiming
from simulator.timing.pipeline import Run, layer_timing, stages_of
from simulator.timing.remaining import (
    Remaining,
    layer_of_tokens,
    layers_as_run,
)
from simulator.timing.schedule import BLOCKS, LIMITS
from simulator.timing.stages import Stage, Work, register
from simulator.timing.tiling import tilings
from simulator.timing.transfers import ceil_div
from tests.builders import buffer, cifarnet_conv2, even_decisions, matrix_layer, roomy_design
from workloads import Gemm, WorkloadTrace
from workloads.traces.layer import Layer

LISTED = roomy_design(address_list=AddressList(entries=64))


def every_other(layer: Layer, taps: int = 1) -> Decisions:
    """Every second row is computed; the others take the row before, or both neighbours."""
    gemm, images = layer.gemm, layer.row_images
    positions = gemm.m // images
    computed = np.arange(0, positions, 2)
    before = np.arange(positions) // 2
    places = np.stack([before, np.minimum(before + np.arange(positions) % 2, len(computed) - 1)], 1)
    weights = np.full(places.shape, 0.5, np.float32)
    weights[computed] = [1, 0]
    rows = FilledRows(
        gemm=gemm,
        images=images,
        computed=computed,
        taps=places[:, :taps].astype(np.int32),
        weights=weights if taps == 2 else None,
    )
    return Decisions(layer=layer.name, gemm=gemm, rows=rows)


def columns_of(gemm: Gemm, dropped: int) -> ColumnDecisions:
    sources = np.arange(gemm.n)
    sources[:dropped] = DROPPED
    return ColumnDecisions(gemm=gemm, sources=sources[None])


def same(one: LayerTiming, other: LayerTiming) -> bool:
    """Whether two timings say the same."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("cycles", "critical_cycles", "busy_cycles", "dram_bytes", "actions", "macs")
    )


def test_filled_rows_by_hand():
    layer = matrix_layer("fc", m=64, n=16, k=16)
    decisions = every_other(layer)
    left = Remaining.of(layer, decisions)
    many = tilings(left, LISTED)
    whole = next(t for t in map(many.one, range(len(many.rows))) if t.rows == 64)
    stages = stages_of(left, LISTED, COMPILED)
    run = Run(left, LISTED, COMPILED, stages, whole.tiles(left))
    # In one tile: a cycle to load 64 x 16 + 16 x 16 bytes and a list of 64 x 2; a fold of 32 rows
    # takes 2 x 16 + 16 + 32 - 2 = 78, while 64 entries are read; then 64 rows are handed out; a
    # cycle to store.
    assert run.cycles == 1 + 78 + 64 + 1
    timing = run.timing()
    assert timing.critical_cycles == {"dram": 2, "array": 78 + 64}
    assert timing.busy_cycles == {
        "dram": 2, "front_end": 0, "cache": 0, "array": 78, "reconstructor": 64, "address_list": 64,
    }  # fmt: skip
    assert timing.dram_bytes["addresses"] == 128
    assert timing.macs == timing.actions["array", "mac"] == 32 * 16 * 16
    assert timing.actions["address_list", "read"] == timing.actions["address_list", "write"] == 64
    assert timing.actions["reconstructor", "add"] == 0
    assert timing.schedule.stages == ("array",)
    # More tiles overlap.
    assert layer_timing(layer, decisions, LISTED).cycles <= AS_FAST * run.cycles
    # With a port that takes 4 of 16 columns a cycle, handing out sets the pace.
    narrow = replace(LISTED, reconstructor=Reconstructor(width=4))
    assert layer_timing(layer, decisions, narrow).bound_by == "reconstructor"


def test_a_report_tells_what_is_there_and_is_read_again():
    trace = WorkloadTrace.from_gemms([("fc", Gemm(m=64, n=16, k=16)), ("out", Gemm(m=4, n=4, k=4))])
    made = {"fc": every_other(trace.layers[0]), "out": None}
    run = ReuseRun(policy={}, images=trace.images, decisions=made, relative_mse={"fc": 0.0})
    narrow = replace(LISTED, address_list=AddressList(entries=64, ports=1), name="listed")
    report = simulate(trace, narrow, run)
    assert report.reuse.busy_cycles["address_list"] == 64
    assert report.reuse.dram_bytes["addresses"] == 128
    first, second = report.reuse.rows()
    assert first["busy_address_list_cycles_per_batch"] == 64
    assert second["busy_address_list_cycles_per_batch"] == 0 and first.keys() == second.keys()
    assert summary_problems(report.to_dict()) == []


def test_filled_rows_of_two_results_are_added():
    layer = matrix_layer("fc", m=64, n=16, k=16)
    design = replace(LISTED, address_list=AddressList(entries=64, taps=2, ports=2))
    timing = layer_timing(layer, every_other(layer, taps=2), design)
    # 32 skipped rows take two results each; two entries are read a cycle.
    assert timing.busy_cycles["reconstructor"] == 32 + 2 * 32
    assert timing.busy_cycles["address_list"] == 64 // 2
    assert timing.actions["reconstructor", "add"] == 32 * 16
    # Two 16-bit addresses an entry.
    assert timing.dram_bytes["addresses"] == 64 * 4


def test_a_list_must_fit_and_say_what_was_decided():
    layer = matrix_layer("fc", m=64, n=16, k=16)
    small = replace(LISTED, address_list=AddressList(entries=63, address_bits=5))
    with pytest.raises(ConfigError) as error:
        layer_timing(layer, every_other(layer), small)
    assert [each.split(" must")[0] for each in error.value.violations] == [
        "Accelerator.address_list.entries",
        "Accelerator.address_list.address_bits",
    ]
    with pytest.raises(ConfigError, match=r"address_list\.taps must name every row"):
        layer_timing(layer, every_other(layer, taps=2), LISTED)
    with pytest.raises(ConfigError, match="'roomy' must have address_list to run"):
        layer_timing(layer, every_other(layer), roomy_design())
    tight = replace(LISTED, output_buffer=buffer(2 * 2 * 16 * 4 - 64))
    with pytest.raises(ConfigError, match="and of what is made of them, got 192; use 256"):
        layer_timing(layer, every_other(layer), tight)


def test_kept_rows_travel_and_the_rest_is_computed():
    layer = matrix_layer("fc", m=64, n=16, k=16)
    kept = np.zeros((1, 64), bool)
    kept[0, :48] = True
    decisions = Decisions(layer="fc", gemm=layer.gemm, rows=KeptRows(gemm=layer.gemm, kept=kept))
    design = replace(LISTED, address_list=AddressList(entries=64, ports=4))
    timing = layer_timing(layer, decisions, design)
    assert timing.macs == 16 * 16 * 16
    assert timing.dram_bytes["kept_results"] == 48 * 16
    assert timing.dram_bytes["outputs"] == 64 * 16
    assert timing.busy_cycles["reconstructor"] == 0
    assert timing.schedule.stages == ("array",)
    everything = replace(decisions, rows=KeptRows(gemm=layer.gemm, kept=kept | True))
    idle = layer_timing(layer, everything, design)
    assert idle.macs == idle.busy_cycles["array"] == idle.actions["weight_buffer", "read_byte"] == 0
    assert idle.dram_bytes["weights"] == 0 and idle.cycles < timing.cycles


def test_dropped_columns_are_as_if_they_had_never_been():
    layer, fewer = (matrix_layer("fc", m=100, n=n, k=48) for n in (40, 24))
    decisions = Decisions(layer="fc", gemm=layer.gemm, columns=columns_of(layer.gemm, dropped=16))
    for design in (roomy_design(), roomy_design(weight_buffer=buffer(2**10))):
        assert same(layer_timing(layer, decisions, design), layer_timing(fewer, None, design))
    shared = replace(even_decisions(layer, length=10, clusters=7), columns=decisions.columns)
    alone = even_decisions(fewer, length=10, clusters=7)
    assert same(
        layer_timing(layer, shared, roomy_design()), layer_timing(fewer, alone, roomy_design())
    )


def test_no_column_at_all_is_refused():
    layer = matrix_layer("fc", m=4, n=4, k=4)
    none = ColumnDecisions(gemm=layer.gemm, sources=np.full((2, 4), DROPPED))
    with pytest.raises(ConfigError, match="must be computed at least in part"):
        layer_timing(layer, Decisions(layer="fc", gemm=layer.gemm, columns=none), roomy_design())


def test_columns_that_take_another_result_are_copied_on_the_way_out():
    layer, half = (matrix_layer("fc", m=64, n=n, k=16) for n in (32, 16))
    columns = ColumnDecisions(gemm=layer.gemm, sources=(np.arange(32) // 2 * 2)[None])
    decisions = Decisions(layer="fc", gemm=layer.gemm, columns=columns)
    assert decisions.units == ("reconstructor",)
    fewer = layer_timing(half, None, roomy_design())
    for width, steps in ((64, 1), (16, 1), (5, 4)):
        design = roomy_design(reconstructor=Reconstructor(width=width))
        timing = layer_timing(layer, decisions, design)
        # 16 of 32 columns are computed; for 64 rows the 16 others are copied, so many at a time,
        # once the array is done with them: in a single tile all of that is waited for.
        assert timing.busy_cycles["reconstructor"] == 64 * steps
        assert timing.macs == 64 * 16 * 16
        assert timing.bound_by == ("array" if steps == 1 else "reconstructor")
        assert fewer.cycles < timing.cycles and (steps > 1 or timing.cycles <= fewer.cycles + 64)
        # All columns are stored; only those that are computed have weights.
        assert timing.dram_bytes["outputs"] == 64 * 32
        assert timing.dram_bytes["weights"] == 16 * 16
        read = ("output_buffer", "read_byte")
        assert timing.actions[read] > fewer.actions[read]
    without = roomy_design(reconstructor=None, front_end=None, cache=None, centroid_buffer=None)
    with pytest.raises(ConfigError, match="must have reconstructor to run"):
        layer_timing(layer, decisions, without)


def test_shared_rows_and_columns_multiply():
    layer, fewer = (matrix_layer("fc", m=100, n=n, k=48) for n in (32, 16))
    columns = ColumnDecisions(gemm=layer.gemm, sources=(np.arange(32) // 2 * 2)[None])
    both = replace(even_decisions(layer, length=16, clusters=7), columns=columns)
    alone = even_decisions(fewer, length=16, clusters=7)
    assert both.macs == alone.macs == 3 * 7 * 16 * 16
    timing, other = (
        layer_timing(each, made, roomy_design()) for each, made in ((layer, both), (fewer, alone))
    )
    assert timing.busy_cycles["array"] == other.busy_cycles["array"]
    # A cycle more for each of the 100 rows, whose 16 copies the port takes at once.
    assert timing.busy_cycles["reconstructor"] == other.busy_cycles["reconstructor"] + 100
    assert timing.dram_bytes["outputs"] == 2 * other.dram_bytes["outputs"]


def two_images(elements: np.ndarray | None = None) -> tuple[Layer, Decisions]:
    """The first image has the first 16 of 32 columns, the second the others."""
    layer = matrix_layer("fc", m=64, n=32, k=32, row_images=2)
    sources = np.full((2, 32), DROPPED)
    sources[0, :16], sources[1, 16:] = np.arange(16), np.arange(16, 32)
    columns = ColumnDecisions(gemm=layer.gemm, sources=sources, elements=elements)
    return layer, Decisions(layer="fc", gemm=layer.gemm, columns=columns)


def test_images_with_columns_of_their_own_run_one_after_the_other():
    layer, decisions = two_images()
    timing = layer_timing(layer, decisions, roomy_design())
    # Each image: 2 folds of 16 elements, 32 rows and 16 columns, each 2 x 16 + 16 + 32 - 2 = 78;
    # a cycle of the DRAM before and after. Of all columns at once: 4 folds of 64 rows, 4 x 110.
    assert timing.cycles == 1 + 2 * 2 * 78 + 1
    assert timing.macs == decisions.macs == 2 * 32 * 16 * 32
    assert timing.dram_bytes["outputs"] == 2 * 32 * 16
    assert timing.dram_bytes["weights"] == 2 * 16 * 32
    event = layer_timing(layer, decisions, roomy_design(), EVENT)
    assert same(timing, event)


def test_elements_that_are_zero_for_an_image_are_not_streamed():
    elements = np.zeros((2, 32), bool)
    elements[0, :16] = elements[1, 8:24] = True
    layer, decisions = two_images(elements)
    timing = layer_timing(layer, decisions, roomy_design())
    assert timing.cycles == 1 + 2 * 78 + 1  # one fold of 16 elements an image
    assert timing.macs == decisions.macs == 2 * 32 * 16 * 16
    assert timing.dram_bytes["inputs"] == 2 * 32 * 16
    assert timing.dram_bytes["weights"] == 2 * 16 * 16


def test_images_share_what_any_of_them_needs_where_that_is_faster():
    # Two images of a row each: run after run, all weights would travel twice.
    layer = matrix_layer("fc", m=2, n=32, k=512, row_images=2)
    sources = np.tile(np.arange(32), (2, 1))
    sources[0, 0] = sources[1, 1] = DROPPED
    columns = ColumnDecisions(gemm=layer.gemm, sources=sources)
    decisions = Decisions(layer="fc", gemm=layer.gemm, columns=columns)
    timing = layer_timing(layer, decisions, roomy_design())
    assert same(timing, layer_timing(layer, None, roomy_design()))
    assert decisions.macs == 2 * 31 * 512 < timing.macs
    alike = ColumnDecisions(gemm=layer.gemm, sources=sources[:1].repeat(2, axis=0))
    fewer = matrix_layer("fc", m=2, n=31, k=512, row_images=2)
    assert same(
        layer_timing(layer, replace(decisions, columns=alike), roomy_design()),
        layer_timing(fewer, None, roomy_design()),
    )


@pytest.mark.parametrize("dataflow", ["weight_stationary", "output_stationary", "input_stationary"])
def test_images_with_columns_of_their_own_are_as_batches_of_one(dataflow):
    # So many columns and buffers so small that there are several tiles of each kind.
    layer = matrix_layer("fc", m=120, n=70, k=60, row_images=3)
    rng = np.random.default_rng(0)
    sources = np.where(rng.random((3, 70)) < 0.4, np.arange(70), DROPPED)
    elements = np.zeros((3, 60), bool)
    elements[0, :20] = elements[1, 20:60] = elements[2, :31] = True
    columns = ColumnDecisions(gemm=layer.gemm, sources=sources, elements=elements)
    decisions = Decisions(layer="fc", gemm=layer.gemm, columns=columns)
    design = roomy_design(output_buffer=buffer(2**12), weight_buffer=buffer(2**11))
    design = replace(design, array=replace(design.array, dataflow=dataflow))
    apart = Remaining.ways(layer, decisions)[1]
    alone = [
        layer_timing(matrix_layer("fc", m=40, n=int(n), k=int(k)), None, design)
        for n, k in zip(columns.computed, columns.multiplied, strict=True)
    ]
    stages = stages_of(apart, design, COMPILED)
    many = tilings(apart, design)
    runs = [
        Run(apart, design, COMPILED, stages, many.one(each).tiles(apart))
        for each in range(len(many.rows))
    ]
    timing = min(runs, key=lambda run: run.cycles).timing()
    assert timing.macs == sum(each.macs for each in alone) == decisions.macs
    assert timing.dram_bytes["outputs"] == sum(each.dram_bytes["outputs"] for each in alone)
    assert sum(timing.critical_cycles.values()) == timing.cycles
    # One image's transfers hide behind another's work, and one cut serves all.
    assert timing.cycles <= 1.1 * sum(each.cycles for each in alone)


def test_skipped_outputs_save_energy_and_no_cycle():
    layer = matrix_layer("fc", m=64, n=16, k=20)
    terms = np.full((1, 64, 16), 20, np.int32)
    terms[0, :10] = 0
    decisions = Decisions(
        layer="fc", gemm=layer.gemm, depth=DepthDecisions(gemm=layer.gemm, terms=terms)
    )
    dense, skipped = (layer_timing(layer, each, roomy_design()) for each in (None, decisions))
    assert skipped.cycles == dense.cycles and skipped.busy_cycles == dense.busy_cycles
    assert skipped.actions["array", "mac"] == skipped.macs == 54 * 16 * 20
    assert skipped.actions | {("array", "mac"): dense.macs} == dense.actions


def test_units_that_are_not_asked_for_cost_no_cycle():
    layer = matrix_layer("fc", m=64, n=16, k=16)
    assert same(layer_timing(layer, None, LISTED), layer_timing(layer, None, roomy_design()))


def test_a_layer_of_fewer_images_is_that_of_a_smaller_batch():
    assert layer_of_images(cifarnet_conv2(images=4), 3) == cifarnet_conv2(images=3)
    with pytest.raises(ConfigError, match="must be 1 to the 4 that it has, got 5"):
        layer_of_images(cifarnet_conv2(images=4), 5)


def test_a_layer_of_fewer_tokens():
    # Two images of six tokens; three heads each.
    mlp = matrix_layer("mlp", m=12, n=8, k=4, row_images=2)
    assert layer_of_tokens(mlp, 6, 4).gemm == Gemm(m=8, n=8, k=4)
    scores = Layer(
        name="attn.scores",
        kind="attention_scores",
        gemm=Gemm(m=6, n=6, k=5, count=6),
        images=2,
        row_images=1,
        input_shape=(2, 3, 6, 5),
        output_shape=(2, 3, 6, 6),
        weights_are_parameters=False,
    )
    left = layer_of_tokens(scores, 6, 4)
    assert left.gemm == Gemm(m=4, n=4, k=5, count=6)
    assert left.input_elements == 6 * 4 * 5
    with pytest.raises(ConfigError, match="tokens of layer 'mlp' must be those of a linear"):
        layer_of_tokens(mlp, 7, 4)


def kept_rows(layer: Layer, gone: np.ndarray) -> Decisions:
    rows = KeptRows(gemm=layer.gemm, kept=np.broadcast_to(gone, (layer.gemm.count, layer.gemm.m)))
    return Decisions(layer=layer.name, gemm=layer.gemm, rows=rows)


def test_frames_and_tokens_that_are_gone_are_not_there_at_all():
    # Rows of two images, of two products each and of six tokens; the second image does not run.
    mlp = matrix_layer("mlp", m=12, n=8, k=4, row_images=2)
    runs = np.array([RUN, KEEP], np.int8)
    frames = FrameDecisions(frames=2, layers={"mlp": runs}, answers=np.arange(2))
    whole = kept_rows(mlp, np.arange(12) >= 6)
    assert layers_as_run((mlp,), {"mlp": whole}, frames, None) == [(layer_of_images(mlp, 1), None)]
    one_more = kept_rows(mlp, np.arange(12) >= 5)
    assert layers_as_run((mlp,), {"mlp": one_more}, frames, None) == [(mlp, one_more)]
    numbers = np.tile(np.arange(6), (2, 1))
    numbers[0, 4:], numbers[1, 1] = DROPPED, DROPPED
    plan = TokenPlan(stands_for={"mlp": numbers})
    fewer = kept_rows(mlp, (numbers == DROPPED).ravel())
    # The second image has five tokens left, the first four.
    assert layers_as_run((mlp,), {"mlp": fewer}, None, plan) == [(layer_of_tokens(mlp, 6, 5), None)]
    assert layers_as_run((mlp,), {"mlp": None}, frames, plan) == [(mlp, None)]


@dataclass(frozen=True, kw_only=True)
class Sorter(Unit):
    words = "sorter"
    colour = "#7a6fd0"
    exploits = True

    lanes: int = field(metadata=integer(1, 64))

    def bill(self, design):
        return [Item(self.lanes, "comparator", {"bits": design.operand_bits})]

    def prices(self, design, table):
        return {"compare": table.energy_pj("comparator", "compare", bits=design.operand_bits)}


@dataclass(frozen=True, kw_only=True)
class Sorted(Accelerator):
    sorter: Sorter | None = field(default=None, metadata=part(Sorter, optional=True))


@dataclass(frozen=True, kw_only=True)
class Order(Evidence):
    units: ClassVar[tuple[str, ...]] = ("sorter",)
    words: ClassVar[str] = "the order of rows"


def test_a_unit_of_ones_own_is_blamed_on_both_engines():
    layer = matrix_layer("fc", m=64, n=16, k=16)
    parts = {name: getattr(LISTED, name) for name in LISTED.units}
    design = Sorted(name="sorted", clock_hz=1e9, sorter=Sorter(lanes=1), **parts)
    decisions = Decisions(layer="fc", gemm=layer.gemm, evidence=Order())
    with pytest.raises(ConfigError, match="must have a stage for sorter"):
        layer_timing(layer, decisions, design)

    @register
    class Sorting(Stage):
        units = ("sorter",)
        track = "sorting"

        def work(self, tiles):
            cycles = 9 * ceil_div(tiles.rows, self.accelerator.sorter.lanes) * tiles.looked
            return Work(
                limits={"sorter": cycles},
                busy_cycles={"sorter": cycles},
                actions=lambda: {("sorter", "compare"): 64},
            )

    for wrong, told in (
        ({"sorter": -1}, "must be whole cycles of at least 0, .* got -1"),
        ({"sorter": 0.5}, "must be whole cycles .* got float64"),
        ({"sorter": np.ones(7, int)}, r"of the tiles' shape .* got int64 of shape \(7,\)"),
        ({"sortr": 1}, "limits must name units of the design, got 'sortr'"),
    ):
        right = Sorting.work
        Sorting.work = lambda self, tiles, wrong=wrong: Work(limits=wrong, busy_cycles={})
        with pytest.raises(ConfigError, match=told):
            layer_timing(layer, decisions, design)
        Sorting.work = right

    compiled, event = (layer_timing(layer, decisions, design, each) for each in (COMPILED, EVENT))
    assert same(compiled, event)
    assert compiled.bound_by == "sorter" and compiled.busy_cycles["sorter"] == 9 * 64
    assert sum(compiled.critical_cycles.values()) == compiled.cycles
    assert tuple(compiled.busy_cycles) == (*BLOCKS, "sorter")
    assert compiled.schedule.names == (*LIMITS, "sorter")
    assert next(iter(compiled.actions)) == ("sorter", "compare")
    with pytest.raises(ConfigError, match="must be fields that no other stage has, got 'array'"):
        register(type("Other", (Stage,), {"units": ("array",), "track": "x"}))


def test_a_dataflow_must_have_a_name_of_its_own():
    with pytest.raises(ConfigError, match="got 'weight_stationary', which is WeightStationary"):
        register_dataflow(
            type("Mine", (Dataflow,), {"name": "weight_stationary", "stays": "weights"})
        )


def test_an_action_that_no_unit_prices_is_named():
    with pytest.raises(ConfigError, match=r"actions of array must be among .* got 'dream'"):
        energy_by_part(LISTED, {("array", "dream"): 3}, 10)
