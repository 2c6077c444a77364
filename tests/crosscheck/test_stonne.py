"""Output-stationary cycles against STONNE's recorded results; `data/SOURCES.md` describes them."""

import csv
from pathlib import Path

import pytest

from accelerators import SystolicArray
from simulator.timing.dataflows.dataflow import gemm_cycles

# STONNE's own pipeline from memory to the array and back, for every fold.
DISTRIBUTION_AND_COLLECTION = 5
TABLE = Path(__file__).parent / "data" / "stonne_output_stationary.csv"
ROWS = list(csv.DictReader(TABLE.open(newline="")))


def sizes(total: int, side: int) -> list[int]:
    """Rows, or columns, of the array that each fold uses."""
    return [min(side, total - start) for start in range(0, total, side)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "x".join(row[name] for name in "MNK"))
def test_folds_one_after_the_other_take_as_long_as_in_stonne(row):
    m, n, k = (int(row[name]) for name in "MNK")
    height, width = (int(side) for side in row["array"].split("x"))
    array = SystolicArray(
        rows=height, columns=width, dataflow="output_stationary", fold_timing="overlapped"
    )
    # A fold of r rows of M and c columns of N alone streams K, and skews by r + c - 2.
    folds = [gemm_cycles(array, r, c, k) for r in sizes(m, height) for c in sizes(n, width)]
    alone = sum(occupancy + latency for occupancy, latency in folds)
    assert alone + DISTRIBUTION_AND_COLLECTION * len(folds) == int(row["stonne_cycles"])
    # Overlapped folds pay the skew once.
    occupancy, latency = gemm_cycles(array, m, n, k)
    assert occupancy == sum(pace for pace, _ in folds) == k * len(folds)
    assert occupancy + latency <= alone
    # As SCALE-Sim counts, a partial fold costs a full one.
    full = SystolicArray(rows=height, columns=width, dataflow="output_stationary")
    (formula, drained) = gemm_cycles(full, m, n, k)
    assert (formula, drained) == (int(row["scalesim_os_formula"]), 0)
    assert alone <= formula


def test_seven_products_are_recorded():
    assert len(ROWS) == 7
