"""Designs around a 64x64 array at 500 MHz with 64 GB/s, for networks of full width."""

from __future__ import annotations

from dataclasses import replace

from accelerators.accelerator import Accelerator
from accelerators.presets.size_32x32 import dense_32x32, leader_32x32, neighbour_32x32, reuse_32x32
from accelerators.units import (
    AddressList,
    ChangeDetector,
    ChannelGate,
    DifferenceUnit,
    FeatureCache,
    FrameDifferencer,
    LshFrontEnd,
    MotionEstimator,
    RangeTable,
    Reconstructor,
    ResultAdder,
    ResultCache,
    SramBuffer,
    SumPredictor,
    SystolicArray,
    Warper,
)

KIB = 1024


def every_64x64() -> Accelerator:
    """The array with every unit that stands beside it: the base of searches over techniques.

    A search sizes what it keeps (`codesign search` with techniques) and leaves the rest out; as it
    is, the design runs any technique that leaves the array as it is, at what the technique starts
    with. All units together are larger than the array, so what it costs is no figure of any of
    them. Independent lanes and weight tables are not among them: they are another array, in which
    no sum passes from unit to unit, and nothing here would run on it as it does on this. Those
    designs, such as `predictor_lanes_16x16` and `merging_16x16`, are bases of their own.
    """
    row = 64 * 24  # bits of a 64-wide row of sums
    return replace(
        dense_32x32(),
        name="every_64x64",
        # a fold's weights are loaded while the one before is multiplied by
        array=SystolicArray(rows=64, columns=64, fold_timing="overlapped"),
        # capacities: our choice, of a tile of 256 pixels of 64 channels and the passes over it
        activation_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=512, ports=2),
        weight_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=512),  # 64 columns x 8 bits
        # two 64-wide rows of 24-bit sums a cycle, read and written back by the reconstructor
        output_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=row, ports=4),
        accumulator_bits=24,  # our choice: holds any sum of 511 int8 products
        # our choice: as many as a search over techniques starts with
        front_end=LshFrontEnd(
            max_hashes=24, max_length=64, lanes=2, projection="sign", latency_cycles=9
        ),
        cache=reuse_32x32().cache,
        neighbour_matcher=neighbour_32x32().neighbour_matcher,
        leader_table=leader_32x32().leader_table,
        centroid_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=row, ports=4),
        reconstructor=Reconstructor(ports=2, width=64),
        # rows of an image of 120 x 160 positions, and four of which one is filled in
        address_list=AddressList(entries=2**15, taps=4, counted=True),
        # what follows: our choice, an access of the activation buffer or a row of sums a cycle, and
        # memories as those of the 16x16 and 32x32 designs, for maps of twice their channels
        channel_gate=ChannelGate(lanes=64, channels=512),
        difference_unit=DifferenceUnit(lanes=64, quantises=True, latency_cycles=4),
        result_adder=ResultAdder(width=64),
        state_buffer=SramBuffer(capacity_bytes=512 * KIB, width_bits=row, ports=2),
        change_detector=ChangeDetector(lanes=64, line_bits=2048, marks=2**17, latency_cycles=4),
        frame_differencer=FrameDifferencer(lanes=64, held_bytes=0),
        feature_cache=FeatureCache(lanes=64, macs=16, capacity_bytes=160 * KIB),
        motion_estimator=MotionEstimator(adders=64, pixel_bytes=160 * KIB, tiles=1200),
        warper=Warper(lanes=64, capacity_bytes=512 * KIB),
        result_cache=ResultCache(entries=1024, ways=16, max_hashes=24),
        range_table=RangeTable(entries=1024, ways=4, max_length=64, width=64),
        sum_predictor=SumPredictor(multipliers=64),
    )
