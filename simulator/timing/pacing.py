"""Units that look at whole maps or frames, as fast as the array multiplies what is left."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from accelerators import Accelerator, SramBuffer
from simulator.decisions.left import layer_of_images
from simulator.policies.changed_positions import line_bits
from simulator.policies.patches import has_positions
from simulator.timing.transfers import ceil_div
from workloads.traces.layer import Layer

_MOST_LANES = 1024
_MOST_PORTS = 1024  # of a buffer, by its rule
_MOST_MARKS = 2**17  # our choice, as of the ready design; those of more rows travel
_MOST_STATE_BYTES = 2**20  # our choice, as of other buffers
# Banks of the activation buffer that a lane asks, and lanes that a port of the weight buffer, and
# of the output buffer, serves: as of the ready design `lanes_16x16`.
_BANKS, _LANES_OF_WEIGHTS, _LANES_OF_SUMS, _WEIGHTS_OF_WORD = 2, 4, 32, 4


def with_paced_units(design: Accelerator, layers: Sequence[Layer], remaining: float) -> Accelerator:
    """The design, those of the following units that it has replaced.

    - What passes over a layer's input, the change detector, the difference unit and the channel
      gate: as many lanes, a power of two up to 1,024, as take all layers' inputs in the time in
      which the array multiplies what is left, but no fewer than an eighth of the array's columns.
      The difference unit gathers its marks in that time, too. The activation buffer reads as wide.
    - The change detector's lines are those of the largest kernel, its marks those of the longest
      layer, up to 131,072.
    - The result adder, and the warper: a row of the array a cycle.
    - The state buffer: what all layers keep of a frame, inputs and sums, a power of two up to 1
      MiB; layers that find no room there keep theirs in the DRAM. Its ports move a value to compare
      with, and one to keep, for each lane.
    - The sum predictor: a threshold for each column; multipliers and adders, where it has any, a
      sixteenth of the array's units.
    - The frame differencer and the feature cache: as many lanes as the DRAM has values for.
    - The motion estimator: four times the array's columns of adders.
    - Independent lanes: two banks of the activation buffer each, up to 1,024 in all, a port of the
      weight buffer for four lanes and of the output buffer for 32; beyond 512 lanes, lanes wait for
      banks, so that a larger array gains little. Weight tables: the same banks, and a port of the
      weight buffer for each of the array's columns.

    Args:
        design: with its array; buffers are fitted already.
        layers: the workload.
        remaining: of the multiplications, those that are left.
    """
    frame = [each if each.images == 1 else _of_frame(each) for each in layers]
    array = design.array
    cycles = remaining * sum(each.gemm.macs for each in frame) / (array.rows * array.columns)
    elements = sum(each.input_elements for each in frame)
    least = max(1, array.columns // 8)
    lanes = _lanes(max(least, elements / cycles))
    changes: dict[str, Any] = {}
    if design.change_detector is not None:
        lines = max((line_bits(each) for each in frame if has_positions(each)), default=1)
        changes["change_detector"] = replace(
            design.change_detector,
            lanes=lanes,
            line_bits=max(1, lines),
            marks=max(64, min(_MOST_MARKS, _power_of_two(max(e.gemm.m for e in layers)))),
        )
    if design.difference_unit is not None:
        marks = sum(each.gemm.count * each.gemm.m * each.gemm.k for each in frame)
        lanes = _lanes(max(least, max(elements, marks / design.operand_bits) / cycles))
        changes["difference_unit"] = replace(design.difference_unit, lanes=lanes)
    if design.channel_gate is not None:
        channels = max(max(each.input_shape[1], each.gemm.n) for each in layers)
        gate = design.channel_gate
        changes["channel_gate"] = replace(gate, lanes=lanes, channels=channels)
    if changes:
        changes["activation_buffer"] = _as_wide(
            design.activation_buffer, lanes * design.operand_bits
        )
    if design.result_adder is not None:
        changes["result_adder"] = replace(design.result_adder, width=array.columns)
    if design.state_buffer is not None:
        changes["state_buffer"] = _state_buffer(design, frame, lanes)
    if design.warper is not None:
        changes["warper"] = replace(design.warper, lanes=array.columns)
    if design.motion_estimator is not None:
        adders = min(4096, 4 * array.columns)
        changes["motion_estimator"] = replace(design.motion_estimator, adders=adders)
    if design.sum_predictor is not None:
        changes["sum_predictor"] = _sum_predictor(design, layers)
    values = _lanes(8 * design.dram.bandwidth_bytes_per_cycle / design.operand_bits)
    for name in ("frame_differencer", "feature_cache"):
        unit: Any = getattr(design, name)
        if unit is not None:
            changes[name] = replace(unit, lanes=values)
    if design.lanes is not None or design.weight_tables is not None:
        changes |= _buffers_of_lanes(design)
    return replace(design, **changes)


def _of_frame(layer: Layer) -> Layer:
    """The layer on one image, where its sizes follow from images."""
    of_rows = layer.row_images == layer.images
    whole = layer.gemm.m if of_rows else layer.gemm.count
    sizes = (whole, layer.input_shape[0], layer.output_shape[0])
    return layer_of_images(layer, 1) if not any(size % layer.images for size in sizes) else layer


def _lanes(least: float) -> int:
    """A power of two, up to the most."""
    return min(_MOST_LANES, _power_of_two(least))


def _power_of_two(least: float) -> int:
    return 1 << max(0, math.ceil(least) - 1).bit_length()


def _as_wide(buffer: SramBuffer, bits: int) -> SramBuffer:
    """The buffer, of which so many bits can be read a cycle; capacities stay, where they may."""
    if 8 * buffer.bytes_per_cycle >= bits:
        return buffer
    ports = ceil_div(bits, 4096)
    width = 8 * ceil_div(ceil_div(bits, ports), 8)
    least = max(buffer.capacity_bytes, _power_of_two(ports * width / 8))
    return replace(buffer, capacity_bytes=least, width_bits=width, ports=ports)


def _state_buffer(design: Accelerator, frame: Sequence[Layer], lanes: int) -> SramBuffer:
    """Room for inputs and results; sums, where differences are added to them."""
    assert design.state_buffer is not None
    kept = design.operand_bits if design.result_adder is None else design.accumulator_bits
    bits = sum(
        each.input_elements * design.operand_bits
        + each.gemm.count * each.gemm.m * each.gemm.n * kept
        for each in frame
    )
    width = max(lanes * design.operand_bits, design.array.columns * kept)
    width = min(4096, 8 * ceil_div(width, 8))
    capacity = min(_MOST_STATE_BYTES, _power_of_two(bits / 8))
    return replace(
        design.state_buffer,
        capacity_bytes=max(capacity, _power_of_two(2 * width / 8)),
        width_bits=width,
        ports=2,
    )


def _sum_predictor(design: Accelerator, layers: Sequence[Layer]) -> Any:
    unit, units = design.sum_predictor, design.array.rows * design.array.columns
    assert unit is not None
    columns = max(each.gemm.n * each.gemm.count for each in layers)
    share = max(1, units // 16)
    return replace(
        unit,
        thresholds=_power_of_two(columns),
        multipliers=share if unit.multipliers else 0,
        adders=share if unit.adders else 0,
    )


def _buffers_of_lanes(design: Accelerator) -> dict[str, SramBuffer]:
    """Ports that feed units which share nothing, and room for an access on each."""
    array, operand = design.array, design.operand_bits
    units = array.rows * array.columns
    weights = array.columns if design.lanes is None else ceil_div(units, _LANES_OF_WEIGHTS)
    wanted = {
        "activation_buffer": (_BANKS * units, operand),
        "weight_buffer": (weights, _WEIGHTS_OF_WORD * operand),
        "output_buffer": (max(2, ceil_div(units, _LANES_OF_SUMS)), design.accumulator_bits),
    }
    found = {}
    for name, (each, bits) in wanted.items():
        buffer: SramBuffer = getattr(design, name)
        ports, width = min(_MOST_PORTS, each), 8 * ceil_div(bits, 8)
        least = max(buffer.capacity_bytes, _power_of_two(ports * width / 8))
        found[name] = replace(buffer, capacity_bytes=least, width_bits=width, ports=ports)
    return found
