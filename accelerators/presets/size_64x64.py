"""Designs around a 64x64 array at 500 MHz with 64 GB/s, for networks of full width."""

from __future__ import annotations

from dataclasses import replace

from accelerators.accelerator import Accelerator
from accelerators.presets.size_32x32 import (
    dense_32x32,
    leader_32x32,
    neighbour_32x32,
    reuse_32x32,
)
from accelerators.units import AddressList, Reconstructor, SramBuffer, SystolicArray

KIB = 1024


def every_64x64() -> Accelerator:
    """The array with all that finds equal work: the base of searches over techniques.

    A search sizes what it keeps (`codesign search` with techniques) and leaves the rest out; as it
    is, the design runs any of them.
    """
    return replace(
        dense_32x32(),
        name="every_64x64",
        # a fold's weights are loaded while the one before is multiplied by
        array=SystolicArray(rows=64, columns=64, fold_timing="overlapped"),
        # capacities: our choice, of a tile of 256 pixels of 64 channels and the passes over it
        activation_buffer=SramBuffer(capacity_bytes=128 * KIB, width_bits=512, ports=2),
        weight_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=512),  # 64 columns x 8 bits
        # two 64-wide rows of 24-bit sums a cycle, read and written back by the reconstructor
        output_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=64 * 24, ports=4),
        accumulator_bits=24,  # our choice: holds any sum of 511 int8 products
        front_end=reuse_32x32().front_end,
        cache=reuse_32x32().cache,
        neighbour_matcher=neighbour_32x32().neighbour_matcher,
        leader_table=leader_32x32().leader_table,
        centroid_buffer=SramBuffer(capacity_bytes=256 * KIB, width_bits=64 * 24, ports=4),
        reconstructor=Reconstructor(ports=2, width=64),
        # rows of an image of 120 x 160 positions, and four of which one is filled in
        address_list=AddressList(entries=2**15, taps=4, counted=True),
    )
