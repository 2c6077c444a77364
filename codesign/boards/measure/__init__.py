"""Measures a network on the device that this runs on, such as a Raspberry Pi.

Only PyTorch and numpy are needed there; numba too for reuse that is compiled: nothing of this
package imports `simulator`, or anything of `codesign` outside of it, when it is imported.

from codesign.boards.measure import Reuse, baseline_rows, measure
from workloads.models import load

measurement = measure(load("resnet18"), images, reuse=Reuse(hashes=10, length=8))
"""

from codesign.boards.measure.board import Board, BoardWatch
from codesign.boards.measure.meter import Meter, read_meter
from codesign.boards.measure.reused import KERNELS, THRESHOLDS, Reuse, ReusedLayer
from codesign.boards.measure.rows import baseline_rows, with_power
from codesign.boards.measure.timing import LayerTimes, Measurement, Timing, measure

__all__ = [
    "KERNELS",
    "THRESHOLDS",
    "Board",
    "BoardWatch",
    "LayerTimes",
    "Measurement",
    "Meter",
    "Reuse",
    "ReusedLayer",
    "Timing",
    "baseline_rows",
    "measure",
    "read_meter",
    "with_power",
]
