"""The dense design of equal area against every design of a grid."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from accelerators import ConfigError, area_by_part, preset
from simulator.timing.dense_baseline import _estimate, equal_area_dense, time_dense, with_rates
from tests.builders import cifarnet_conv2, matrix_layer

LAYERS = (cifarnet_conv2(images=100), matrix_layer("fc", m=100, n=384, k=4096, row_images=100))
KIB = 1024


def best_of_grid(plain, budget_mm2, worth):
    """Fewest cycles of a grid of buffers and shapes; those estimated far above `worth` are left."""
    found = worth
    capacities = product(
        [2 * KIB, 8 * KIB, 32 * KIB],
        [2 * KIB, 16 * KIB, 128 * KIB],
        [32 * KIB, 64 * KIB, 128 * KIB],
    )
    for capacity, rows in product(capacities, (8, 16, 20, 25, 32, 40, 50, 64, 80, 100, 134)):
        for columns in (8, 13, 16, 22, 32, 43, 64, 96, 128):
            array = replace(plain.array, rows=rows, columns=columns)
            try:
                design = with_rates(plain, array, capacity)
            except ConfigError:
                continue
            many = replace(array, rows=np.array([rows]), columns=np.array([columns]))
            if _estimate(LAYERS, plain, many, np.array([capacity]))[0] > 1.2 * found:
                continue
            if sum(area_by_part(design).values()) > budget_mm2:
                continue
            try:
                timings = time_dense(LAYERS, design)
            except ConfigError:  # a buffer holds no tile
                continue
            found = min(found, sum(timing.cycles for _, timing in timings))
    return found


@pytest.mark.parametrize("name", ["reuse_16x16", "reuse_32x32", "reuse_16x16_int8"])
def test_no_grid_design_of_equal_area_is_clearly_faster(name):
    accelerator = preset(name)
    budget_mm2 = sum(area_by_part(accelerator).values())
    design, timings = equal_area_dense(LAYERS, accelerator)
    assert sum(area_by_part(design).values()) <= budget_mm2 * (1 + 1e-12)
    cycles = sum(timing.cycles for _, timing in timings)
    best = best_of_grid(accelerator.without_reuse(), budget_mm2, cycles)
    # The search ranks by a closed form and times a few designs in full. Against finer grids, on all
    # of CifarNet, it found the very best for two of these presets and one 3.4 % slower for the
    # third; 5 % is what may be missing from a reported speedup.
    assert cycles <= 1.05 * best
