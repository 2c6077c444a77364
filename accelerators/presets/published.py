"""Reuse units as published, on this project's arrays and buffers.

Sources: Cicek et al., "Energy Efficient Boosting of GEMM Accelerators for DNN via Reuse", ACM
TODAES 27(5), 2022, with its RTL and model (nmcicek/deepreuse-soc); Focus, HPCA 2026
(dubcyfor3/Focus).
"""

from __future__ import annotations

from dataclasses import replace

from accelerators.accelerator import Accelerator
from accelerators.presets.size_16x16 import reuse_16x16
from accelerators.presets.size_32x32 import reuse_32x32
from accelerators.units import CentroidCache, LshFrontEnd, Reconstructor


def cicek_design_b() -> Accelerator:
    """Cicek's banked design: a fetch of 16 words, hashed and dispatched to four banks.

    Its published model starts one fetch a cycle; a bank is held while it updates its entry.
    """
    return replace(
        reuse_16x16(),
        name="cicek_design_b",
        front_end=LshFrontEnd(
            max_hashes=15,  # model: layerHashSize 15
            max_length=16,  # model: a fetch of 16 words, of which three sub-vectors of 5 use 15
            packing=True,
            projection="int8",  # model: coefficients of -128 to 127
            latency_cycles=4,  # our choice: an adder tree of 4 levels
        ),
        cache=CentroidCache(
            entries=2**15,  # our choice: one for every signature, so that nothing is evicted
            ways=1,
            banks=4,  # model: the configuration it was last run with
            update_cycles=3,  # model: execute latency 3
            clear_entries_per_cycle=64,  # our choice
        ),
    )


def focus_32x32() -> Accelerator:
    """Focus's array, vector width and gather, with hashing in place of its cosine comparisons.

    Focus compares each 32-wide vector with a few earlier ones and keeps no running means; what it
    shares with this model is the gather: tokens x ceil(K/32) x ceil(N/32) / ports cycles.
    """
    return replace(
        reuse_32x32(),
        name="focus_32x32",
        front_end=LshFrontEnd(
            max_hashes=16,  # our choice
            max_length=32,  # Focus: 32-wide vectors
            latency_cycles=8,  # our choice
        ),
        cache=CentroidCache(
            entries=1024,  # our choice
            ways=8,  # our choice
            clear_entries_per_cycle=128,  # our choice
        ),
        reconstructor=Reconstructor(ports=1, width=32),  # Focus: 32 sums a cycle and port
    )
