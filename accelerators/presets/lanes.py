"""Designs of 16x16 units that each have an output of their own, at 500 MHz."""

from __future__ import annotations

from dataclasses import replace

from accelerators.accelerator import Accelerator
from accelerators.presets.size_16x16 import KIB, dense_16x16
from accelerators.units import IndependentLanes, SramBuffer, SystolicArray, WeightTables


def lanes_16x16() -> Accelerator:
    """Independent lanes: sums that end early, or are never begun, save cycles."""
    return replace(
        dense_16x16(),
        name="lanes_16x16",
        array=SystolicArray(
            rows=16, columns=16, dataflow="output_stationary", fold_timing="overlapped"
        ),
        # our choice: two banks of one activation each for each of 256 lanes, which then get 0.79 of
        # what they ask for
        activation_buffer=SramBuffer(capacity_bytes=64 * KIB, width_bits=8, ports=512),
        # 4 weights a word, which feed a lane for 4 cycles: 64 words a cycle for 256 lanes
        # capacity: our choice, half of the dense design's, as each weight has an index beside it
        weight_buffer=SramBuffer(capacity_bytes=64 * KIB, width_bits=32, ports=64),
        # a sum a port; our choice: sums of 32 products or more on 256 lanes leave 8 a cycle
        output_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=32, ports=8),
        lanes=IndependentLanes(index_bits=13),  # our choice: sums of up to 8,192 products
    )


def tables_16x16() -> Accelerator:
    """Weight tables: activations of equal weights are summed before they are multiplied."""
    lanes = lanes_16x16()
    return replace(
        lanes,
        name="tables_16x16",
        # tables, of which the 16 units of a column share what is read: a word a column
        weight_buffer=SramBuffer(capacity_bytes=64 * KIB, width_bits=32, ports=16),
        lanes=None,
        weight_tables=WeightTables(filters=2),  # our choice: groups of two columns
    )


def merging_16x16() -> Accelerator:
    """Weight tables of four columns that keep sums to use them again."""
    return replace(
        tables_16x16(),
        name="merging_16x16",
        weight_tables=WeightTables(filters=4, sums=256),  # our choice: 1 KiB of sums a unit
    )
