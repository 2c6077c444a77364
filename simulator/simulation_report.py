"""The answer for one workload, one accelerator and one policy."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.analysis.error_bound import ErrorBound
from simulator.analysis.pixel_answers import PixelAnswers
from simulator.results.design import DesignReport
from simulator.results.differences import (
    UNCLEAR,
    change_text,
    kept,
    level_text,
    loss_interval,
    opening,
    ratio_text,
    unclear_text,
)
from simulator.results.intervals import Interval
from simulator.results.lookup import DENSE, FORMAT_VERSION, IDLE, REUSE
from simulator.results.rows import write_rows
from simulator.results.weights import weights_clause
from workloads.traces.judged import judged_text
from workloads.traces.scores import score_name
from workloads.traces.trace import not_counted_line
from workloads.writing import write_atomically

UNITS = (
    "names that end in _per_image are of one image, the mean of the batch; cycles, actions, bytes, "
    "macs and picojoules are of the whole batch of `images`"
)


@dataclass(frozen=True, kw_only=True)
class SimulationReport:
    """Speedup, energy, area and accuracy of one set of reuse decisions.

    Attributes:
        workload: the trace's provenance.
        policy: what decided, as plain values.
        reuse: the design as given, under the policy. A design without reuse units runs dense.
        dense: the dense design with the same array and buffers.
        dense_equal_area: the dense design that has the reuse units' area as well; of a design that
            runs dense, itself, or the best dense one of its area where that was asked for.
        accuracy: under reuse, by the workload's score: the fraction of images labelled right unless
            the workload names another; `None` if unknown.
        dense_accuracy: the same without reuse.
        agreement: fraction of images, or of pixels or positions, on which reuse and dense agree;
            `None` if the model was not run, or its outputs have no classes to compare.
        output_mse: mean squared difference of the model's outputs; `None` if the model was not
            run, or they are not finite under reuse.
        output_error: the same over the mean square of the dense model's outputs; `None` likewise.
        unjudged: why agreement or accuracy is not known though the model was run, else empty.
        intervals: 95 % confidence intervals by name, see `simulator.results.intervals`.
        error_bound: the error analysis, if it was asked for; see `simulator.analysis.error_bound`.
        pixels: pictures for the page, see `simulator.pixel_answers`; numbers have no part in them.
    """

    workload: dict
    policy: dict
    reuse: DesignReport
    dense: DesignReport
    dense_equal_area: DesignReport
    accuracy: float | None = None
    dense_accuracy: float | None = None
    agreement: float | None = None
    output_mse: float | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    output_error: float | None = None
    unjudged: str = ""
    error_bound: ErrorBound | None = None
    pixels: PixelAnswers | None = None

    @property
    def design(self) -> str:
        """What the design as given is called: `reuse` where something is taken off some layer, or
        was looked for above all of them.

        Else it is `reuse_units_idle` with reuse units, and `dense` without. What is known before
        the inputs are, such as which columns are dropped, may be taken off without any unit.
        """
        reuses = any(layer.remaining_ratio is not None for layer in self.reuse.layers)
        if reuses or self.reuse.above:
            return REUSE
        return IDLE if self.reuse.accelerator.has_reuse else DENSE

    @property
    def designs(self) -> dict[str, DesignReport]:
        """The designs by name, that as given last; one that runs dense is the dense one."""
        if self.design == DENSE:
            is_alone = self.dense_equal_area.accelerator == self.reuse.accelerator
            others = {} if is_alone else {"dense_equal_area": self.dense_equal_area}
            return {**others, DENSE: self.reuse}
        return {
            DENSE: self.dense,
            "dense_equal_area": self.dense_equal_area,
            self.design: self.reuse,
        }

    @property
    def speedup_equal_array(self) -> float:
        """Cycles of the dense design with the same array over this one's; above 1 is faster."""
        return self.dense.cycles / self.reuse.cycles

    @property
    def speedup_equal_area(self) -> float:
        """Cycles of the dense design of equal area over those of this one; above 1 is faster."""
        return self.dense_equal_area.cycles / self.reuse.cycles

    @property
    def energy_ratio_equal_array(self) -> float:
        """Energy of this design over that of the dense one with the same array; below 1 is less."""
        return self.reuse.total_energy_pj / self.dense.total_energy_pj

    @property
    def energy_ratio_equal_area(self) -> float:
        """Energy of this design over that of the dense one of equal area; below 1 is less."""
        return self.reuse.total_energy_pj / self.dense_equal_area.total_energy_pj

    @property
    def ratios(self) -> dict[str, float]:
        """The four by name; of a design against itself all are 1."""
        names = (
            "speedup_equal_array",
            "speedup_equal_area",
            "energy_ratio_equal_array",
            "energy_ratio_equal_area",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def verdict(self) -> str:
        """One sentence: does reuse pay here, and what bounds it; see `results.differences`."""
        bound = f"bound by {self.reuse.bound_by.replace('_', '-')}."
        weights = weights_clause(self.workload.get("weights"))
        if self.design == DENSE:
            best = ""
            if len(self.designs) > 1:
                best = (
                    f" ({ratio_text(self.speedup_equal_area)}x the speed and "
                    f"{ratio_text(self.energy_ratio_equal_area)}x the energy of the best dense "
                    "design of its area)"
                )
            return (
                f"{self.reuse.accelerator.name} runs dense{weights}: "
                f"{self.reuse.latency_ms_per_image:.3g} ms and "
                f"{self.reuse.energy_uj_per_image:.3g} uJ per image{best}{self._score}; {bound}"
                f"{self._not_counted}"
            )
        compared = (
            f"{ratio_text(self.speedup_equal_area)}x the speed and "
            f"{ratio_text(self.energy_ratio_equal_area)}x the energy of a dense design of equal "
            f"area ({ratio_text(self.speedup_equal_array)}x and "
            f"{ratio_text(self.energy_ratio_equal_array)}x of one with the same array)"
        )
        if self.design == IDLE:
            return (
                f"Nothing is reused here{weights}: {self.reuse.accelerator.name} runs dense, its "
                f"reuse units idle, at {compared}{self._score}; {bound}{self._not_counted}"
            )
        lost, quality = self._lost
        state = kept(lost, self._loss_interval)
        pays = opening(self.speedup_equal_area, self.energy_ratio_equal_area, lost, state)
        if state == UNCLEAR:
            quality += f"; {unclear_text(self.reuse.images)}"
        return f"{pays} here{weights}: {compared}{quality}; {bound}{self._not_counted}"

    @property
    def _score(self) -> str:
        """The score of a run without reuse in words; empty where it is not known."""
        if self.accuracy is None:
            return ""
        score = score_name(self.workload.get("score", "accuracy"))
        told = level_text(self.intervals.get("accuracy"))
        return f", {score} {100 * self.accuracy:.1f} %{told}"

    @property
    def _loss_interval(self) -> Interval | None:
        """Lowest and highest loss of accuracy, `None` where that is not known."""
        labelled = self.accuracy is not None and self.dense_accuracy is not None
        quality = self.workload.get("score", "accuracy") if labelled else "agreement"
        return loss_interval(quality, self.intervals)

    @property
    def _not_counted(self) -> str:
        """What the workload lacks, as a sentence more."""
        line = not_counted_line(self.workload)
        return f" {line}" if line else ""

    @property
    def _lost(self) -> tuple[float | None, str]:
        """Fraction of answers lost to reuse, `None` if unknown, and that in words."""
        judged = self.judged and f" (judged: {self.judged})"
        if self.accuracy is not None and self.dense_accuracy is not None:
            change = self.accuracy - self.dense_accuracy
            score = score_name(self.workload.get("score", "accuracy"))
            told = change_text(change, self.intervals.get("change"))
            return -change, f", {score} {100 * self.accuracy:.1f} % ({told}){judged}"
        if self.agreement is not None:
            told = level_text(self.intervals.get("agreement"))
            agree = f", {100 * self.agreement:.1f} % of outputs agree with the dense model's{told}"
            why = self.unjudged and f" ({self.unjudged})"
            return 1 - self.agreement, agree + judged + why
        if self.output_mse is None and not self.unjudged:
            return None, ", accuracy unknown (the model was not run)"
        error = ""
        if self.output_error is not None:
            error = f", outputs are off by {100 * self.output_error:.3g} % (relative squared error)"
        elif self.output_mse is not None:
            error = f", outputs are off by {self.output_mse:.3g} (mean squared)"
        return None, f"{error}{judged}, accuracy unknown ({self.unjudged})"

    @property
    def judged(self) -> str:
        """Which of several outputs of the model is judged; empty where there is but one."""
        return judged_text(self.workload)

    def to_dict(self) -> dict:
        """Everything but the pictures, as plain values for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "verdict": self.verdict,
            "design": self.design,
            "units": UNITS,
            **self.ratios,
            "accuracy": self.accuracy,
            "dense_accuracy": self.dense_accuracy,
            "agreement": self.agreement,
            "output_mse": self.output_mse,
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "output_error": self.output_error,
            "judged": self.judged,
            "unjudged": self.unjudged,
            "error_bound": self.error_bound and _finite(self.error_bound.to_dict()),
            "policy": self.policy,
            "workload": self.workload,
            "designs": {name: design.to_dict() for name, design in self.designs.items()},
        }

    def write_json(self, path: str | Path) -> Path:
        """Write `to_dict` to a file."""
        return write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")

    def rows(self) -> list[dict]:
        """A flat row for each design and layer, as `write_csv` writes them.

        All have the same columns; one design's blocks and transfers are 0 in the others.
        """
        rows = [
            {"design": name, **row}
            for name, design in self.designs.items()
            for row in design.rows()
        ]
        columns = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name, 0) for name in columns} for row in rows]

    def write_csv(self, path: str | Path) -> Path:
        """Write a row for each design and layer."""
        return write_rows(path, self.rows())

    def write_html(self, path: str | Path) -> Path:
        """Write a page that opens without a network: verdict, key numbers, plots, tables."""
        from simulator.pages.simulation_page import simulation_html

        return write_atomically(path, simulation_html(self.to_dict(), pixels=self.pixels))


def _finite(value: Any) -> Any:
    """Plain values for JSON, which has no infinity: a bound that overflows is none."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
