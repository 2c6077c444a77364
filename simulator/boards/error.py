"""How far the CPU model was off on networks that nothing was fitted on.

The errors are those of `data/processor_errors.csv`, which `simulator.boards.fit` writes beside
the constants, and `studies/011_cpu_model.py` looks at from closer by.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources

FLOATING_POINT, INT8, TRANSFORMERS = "floating point", "int8", "transformers"
# Whose error is not that of one board: too few were measured.
ALL_BOARDS = "all"
# Of a prediction whose error nobody knows.
_UNKNOWN_DIGITS = 2


@dataclass(frozen=True, kw_only=True)
class PredictionError:
    """Absolute errors, (predicted - measured) / measured, on networks that were held out.

    Attributes:
        board: that the constants were fitted on, or `ALL_BOARDS`.
        of: `FLOATING_POINT`, `INT8`, or `TRANSFORMERS`: networks that are mostly linear layers.
        rows: measured times of held-out networks.
        lowest, median, p90, highest: of these errors; `p90` is the 90th percentile.
    """

    board: str
    of: str
    rows: int
    lowest: float
    median: float
    p90: float
    highest: float

    @property
    def text(self) -> str:
        """The error in words, after "off by"."""
        if self.of == TRANSFORMERS:
            return (
                f"{100 * self.lowest:.0f} to {100 * self.highest:.0f} % on the transformers that "
                "the model was not fitted on"
            )
        return (
            f"{100 * self.median:.0f} % in the median and {100 * self.p90:.0f} % in the 90th "
            "percentile on networks that the model was not fitted on"
        )

    @property
    def bound(self) -> float:
        """The error that a prediction is compared within: most were less off."""
        return self.highest if self.of == TRANSFORMERS else self.p90

    @property
    def digits(self) -> int:
        """Digits that a prediction is worth: the fewest whose rounding is less than the error.

        d digits round by up to 0.5 * 10^(1 - d): 50 % with one, 5 % with two.
        """
        return max(1, math.ceil(1 - math.log10(2 * self.median)))


def digits_of(error: PredictionError | None) -> int:
    """Digits that a prediction is worth; where its error is not known, two."""
    return _UNKNOWN_DIGITS if error is None else error.digits


@cache
def prediction_errors() -> dict[tuple[str, str], PredictionError]:
    """(board, what) -> the error there."""
    file = resources.files("simulator") / "data" / "processor_errors.csv"
    return {
        (row["board"], row["of"]): PredictionError(
            board=row["board"],
            of=row["of"],
            rows=int(row["rows"]),
            **{name: float(row[name]) for name in ("lowest", "median", "p90", "highest")},
        )
        for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    }
