"""Designs around a 16x16 array at 500 MHz, the size of an embedded accelerator.

``reuse_16x16_int8`` follows Cicek et al., ACM TODAES 2022, as design A of its RTL
(nmcicek/deepreuse-soc) has it.
"""

from __future__ import annotations

from dataclasses import replace

from accelerators.accelerator import Accelerator
from accelerators.units import (
    AddressList,
    CentroidCache,
    ChannelGate,
    DifferenceUnit,
    Dram,
    FeatureCache,
    FrameDifferencer,
    LshFrontEnd,
    RangeTable,
    Reconstructor,
    ResultAdder,
    ResultCache,
    SramBuffer,
    SystolicArray,
)

KIB = 1024


def dense_16x16() -> Accelerator:
    """The array alone."""
    return Accelerator(
        name="dense_16x16",
        array=SystolicArray(rows=16, columns=16),  # the project's worked example
        # capacities: our choice; of CifarNet's conv2 the weights (100 KiB), and twice one image's
        # inputs (16 KiB) and sums (64 KiB), fit
        activation_buffer=SramBuffer(capacity_bytes=64 * KIB, width_bits=128),  # 16 rows x 8 bits
        weight_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=128),  # 16 columns x 8 bits
        # 16 columns x 32 bits, read and written back
        output_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=512, ports=2),
        # 12.8 GB/s, one 64-bit channel of DDR4-1600, over 500 MHz
        dram=Dram(bandwidth_bytes_per_cycle=25.6, kind="focus_2026"),
        clock_hz=500e6,  # as Focus (HPCA 2026) reports for its RTL
        operand_bits=8,  # as nmcicek/deepreuse-soc
        accumulator_bits=32,  # our choice: holds any sum of 131,071 int8 products
        technology="hwcomponents_45nm",  # our choice: the node of Horowitz, ISSCC 2014
    )


def columns_16x16() -> Accelerator:
    """The array with columns that each image chooses, or that are copied from others."""
    return replace(
        dense_16x16(),
        name="columns_16x16",
        channel_gate=ChannelGate(
            lanes=16,  # our choice: a row of the array's inputs
            channels=512,  # our choice: as many as VGG-16 and ResNet-18 have
        ),
        reconstructor=Reconstructor(ports=1, width=16),  # our choice: a row of the array's sums
    )


def difference_16x16() -> Accelerator:
    """The array with units that multiply differences only and add them to earlier results."""
    return replace(
        dense_16x16(),
        name="difference_16x16",
        difference_unit=DifferenceUnit(
            lanes=16,  # our choice: an access of the activation buffer
            quantises=True,
            latency_cycles=4,  # our choice: scale, round, subtract, compare
        ),
        result_adder=ResultAdder(width=16),  # our choice: a row of the array's sums
        # our choice: CifarNet remembers 337 KiB of a frame in 5 bits; two ports, for it is read and
        # written in a cycle
        state_buffer=SramBuffer(capacity_bytes=512 * KIB, width_bits=512, ports=2),
    )


def listed_16x16() -> Accelerator:
    """The array with a list of positions that are computed; the others are filled in from them."""
    return replace(
        dense_16x16(),
        name="listed_16x16",
        address_list=AddressList(
            entries=8192,  # our choice: the positions of a 64x128 output
            address_bits=16,  # our choice: some to spare
            taps=4,  # as a skipped position has neighbours
            counted=True,  # one beside it, two, or four about it
        ),
        reconstructor=Reconstructor(ports=1, width=16),  # our choice: a row of the array's sums
    )


def gated_16x16() -> Accelerator:
    """The array with what tells frames apart: differences of pixels or maps, and sums of maps."""
    return replace(
        dense_16x16(),
        name="gated_16x16",
        frame_differencer=FrameDifferencer(
            lanes=16,  # our choice: an access of the activation buffer
            held_bytes=0,  # held frames lie in the DRAM in any case
        ),
        feature_cache=FeatureCache(
            lanes=16,  # likewise
            macs=4,  # our choice
            capacity_bytes=32 * KIB,  # our choice: 32 features of 512 maps
        ),
    )


def reuse_16x16() -> Accelerator:
    """The array with reuse; hashes are signs of +-1 projections, adders only."""
    return replace(
        dense_16x16(),
        name="reuse_16x16",
        # one 64-wide row of 32-bit sums a cycle, read and written by the reconstructor
        output_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=64 * 32, ports=2),
        front_end=LshFrontEnd(
            max_hashes=16,  # our choice: the worked example uses 10, Cicek's RTL has 20
            max_length=16,  # our choice: as long as the array has rows
            lanes=1,
            projection="sign",
            latency_cycles=8,  # our choice: an adder tree of 4 levels, a compare, packing
        ),
        cache=CentroidCache(
            entries=1024,  # our choice: the rows of a 32x32 image
            ways=8,  # as nmcicek/deepreuse-soc
            clear_entries_per_cycle=64,  # our choice: 16 cycles for all, valid bits are registers
            miss_cycles=20,  # our choice
        ),
        # capacity: our choice; width: one 64-wide row of 32-bit results a cycle; two ports, for the
        # array reads a centroid and writes a result in a cycle
        centroid_buffer=SramBuffer(capacity_bytes=64 * KIB, width_bits=64 * 32, ports=2),
        reconstructor=Reconstructor(ports=1, width=64),  # the worked example's 64-wide row a cycle
    )


def reuse_16x16_int8() -> Accelerator:
    """The array with the front-end and cache of Cicek's design A: 480 int8 multipliers."""
    return replace(
        reuse_16x16(),
        name="reuse_16x16_int8",
        front_end=LshFrontEnd(
            max_hashes=20,  # RTL: maxH 20
            max_length=24,  # RTL: maxL 24
            lanes=1,  # RTL: 1 vector a cycle
            projection="int8",  # RTL: int8 multipliers and adder trees
            latency_cycles=5,  # RTL: ceil(log2 L) for L = 24
        ),
        cache=CentroidCache(
            entries=64 * 8,  # RTL: 64 sets x 8 ways
            ways=8,
            clear_entries_per_cycle=1,  # RTL: one a cycle
            miss_cycles=20,  # our choice; the RTL's 4 miss registers are not modelled
        ),
    )


def remembering_16x16() -> Accelerator:
    """The array with a result cache, for which it makes the signatures itself (MERCURY)."""
    return replace(
        reuse_16x16(),
        name="remembering_16x16",
        front_end=None,
        cache=None,
        result_cache=ResultCache(
            entries=1024,  # our choice, and what this project recalls of the paper
            ways=16,  # likewise
            max_hashes=24,  # our choice: 20 bits and some to spare
            clear_entries_per_cycle=64,  # our choice: 16 cycles for all, valid bits are registers
        ),
    )


def ranging_16x16() -> Accelerator:
    """The array with a range table."""
    return replace(
        reuse_16x16(),
        name="ranging_16x16",
        front_end=None,
        cache=None,
        range_table=RangeTable(
            entries=1024,  # our choice, as the centroid cache of `reuse_16x16`
            ways=4,  # our choice
            max_length=16,  # our choice: as long as the array has rows
            width=16,  # our choice: a vector a cycle
        ),
    )
