"""Designs around a 32x32 array at 500 MHz with 64 GB/s, as Focus (HPCA 2026) sets it up."""

from __future__ import annotations

from dataclasses import replace

from accelerators.accelerator import Accelerator
from accelerators.units import (
    CentroidCache,
    ChangeDetector,
    Dram,
    LeaderTable,
    LshFrontEnd,
    MotionEstimator,
    NeighbourMatcher,
    Reconstructor,
    SramBuffer,
    SystolicArray,
    Warper,
)

KIB = 1024


def dense_32x32() -> Accelerator:
    """The array alone."""
    return Accelerator(
        name="dense_32x32",
        array=SystolicArray(rows=32, columns=32),  # as Focus, which has FP16 where this has int8
        # capacities: our choice, twice those of dense_16x16
        activation_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=256),  # 32 rows x 8 bits
        weight_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=256),  # 32 columns x 8 bits
        # 32 columns x 32 bits, read and written back
        output_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=1024, ports=2),
        dram=Dram(bandwidth_bytes_per_cycle=128.0, kind="focus_2026"),  # Focus: 64 GB/s at 500 MHz
        clock_hz=500e6,  # Focus
        operand_bits=8,  # our choice, as dense_16x16
        accumulator_bits=32,  # our choice, as dense_16x16
        technology="hwcomponents_45nm",  # our choice, as dense_16x16
    )


def reuse_32x32() -> Accelerator:
    """The array with reuse, two of everything: lanes, banks, ports."""
    return replace(
        dense_32x32(),
        name="reuse_32x32",
        # each lane reads a sub-vector of 32 bytes a cycle
        activation_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=32 * 8, ports=2),
        # two 64-wide rows of 32-bit sums a cycle, read and written back by the reconstructor
        output_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=64 * 32, ports=4),
        front_end=LshFrontEnd(
            max_hashes=16,  # our choice, as reuse_16x16
            max_length=32,  # our choice: as long as the array has rows; also Focus's vector width
            lanes=2,  # our choice: four times the units to feed
            projection="sign",
            latency_cycles=8,  # our choice: an adder tree of 5 levels, a compare, packing
        ),
        cache=CentroidCache(
            entries=2048,  # our choice: twice reuse_16x16
            ways=8,  # as nmcicek/deepreuse-soc
            banks=2,  # both lanes ask each cycle
            clear_entries_per_cycle=128,  # our choice: 16 cycles for all, valid bits are registers
            miss_cycles=20,  # our choice
        ),
        # capacity: our choice; width: two 64-wide rows of 32-bit results a cycle
        centroid_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=64 * 32, ports=2),
        reconstructor=Reconstructor(ports=2, width=64),  # our choice: keeps up with the lanes
    )


def neighbour_32x32() -> Accelerator:
    """The array with a neighbour matcher: Focus's vector width, line buffer and gather."""
    return replace(
        dense_32x32(),
        name="neighbour_32x32",
        neighbour_matcher=NeighbourMatcher(
            width=32,  # Focus: 32-wide vectors; one of 32 bytes a cycle from the activation buffer
            lanes=1,  # Focus's simulator: a comparison a cycle
            line_entries=256,  # Focus: 16 KB of 32-wide FP16 vectors
            means=True,  # Focus: members take the mean
            latency_cycles=8,  # our choice: an adder tree of 5 levels, a test of 3
        ),
        # two 32-wide rows of 32-bit sums a cycle, read and written back by the reconstructor
        output_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=32 * 32, ports=4),
        # capacity: our choice, as reuse_32x32; width: two 32-wide rows of 32-bit results a cycle
        centroid_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=32 * 32, ports=2),
        reconstructor=Reconstructor(ports=2, width=32),  # Focus: two ports, where one takes longer
    )


def leader_32x32() -> Accelerator:
    """The array with a leader table, and buffers that hold tiles of 256 pixels of 64 channels."""
    return replace(
        dense_32x32(),
        name="leader_32x32",
        # a vector of 64 bytes in two cycles
        activation_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=256),
        # two 32-wide rows of 32-bit sums a cycle, read and written back by the reconstructor
        output_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=32 * 32, ports=4),
        leader_table=LeaderTable(
            entries=16,  # our choice: twice as many leave hardly less work on street video
            max_length=64,  # our choice: two of the array's folds
            width=64,
            lanes=4,  # our choice: five turns for all, half of what a 3x3 kernel's product takes
            undecided=1,  # our choice: a vector in five cycles, as those turns take
            latency_cycles=9,  # our choice: an adder tree of 6 levels, a test of 3
        ),
        # capacity: our choice, twice reuse_32x32; the array writes a result as two are gathered
        centroid_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=32 * 32, ports=4),
        reconstructor=Reconstructor(ports=2, width=32),
    )


def change_32x32() -> Accelerator:
    """The array with a change detector, for streams of frames."""
    return replace(
        dense_32x32(),
        name="change_32x32",
        change_detector=ChangeDetector(
            lanes=32,  # our choice: what the activation buffer reads a cycle
            line_bits=2048,  # our choice: six lines of a map 320 wide, of a 7x7 kernel
            marks=2**17,  # our choice: the positions of a 320x240 map, and some to spare
            latency_cycles=4,  # our choice: subtract, compare, OR, find the next mark
        ),
    )


def motion_32x32() -> Accelerator:
    """The array with a motion estimator and a warper, after EVA2 (ISCA 2018)."""
    return replace(
        dense_32x32(),
        name="motion_32x32",
        motion_estimator=MotionEstimator(
            adders=64,  # our choice: a tile of 8 x 8 pixels a cycle, as the consumer takes them
            pixel_bytes=160 * KIB,  # our choice: two frames of 240 x 320 pixels
            tiles=1200,  # those of 8 x 8 pixels of such a frame
            latency_cycles=16,  # our choice: an adder tree of 6 levels, running sums, a compare
        ),
        warper=Warper(
            lanes=32,  # our choice: as the array's columns
            capacity_bytes=256 * KIB,  # our choice: 32 channels of 60 x 80, and some to spare
            latency_cycles=8,  # our choice: a multiplier and two levels of adders
        ),
    )
