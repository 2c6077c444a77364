"""The answer for one workload, one accelerator and one policy."""

import json
from dataclasses import dataclass
from pathlib import Path

from simulator.error_bound import ErrorBound
from simulator.report.design import DesignReport
from simulator.report.files import write_atomically
from simulator.report.pixel_answers import PixelAnswers
from simulator.report.rows import write_rows
from workloads.scores import SCORE_NAMES
from workloads.trace import not_counted_line

FORMAT_VERSION = 1
# Loss of accuracy, as a fraction of all images, beyond which a design is not said to pay.
ACCURACY_DROP = 0.02


@dataclass(frozen=True, kw_only=True)
class SimulationReport:
    """Speedup, energy, area and accuracy of one set of reuse decisions.

    Attributes:
        workload: the trace's provenance.
        policy: what decided, as plain values.
        reuse: the design as given, under the policy. A design without reuse units runs dense.
        dense: the dense design with the same array and buffers.
        dense_equal_area: the dense design that has the reuse units' area as well.
        accuracy: under reuse, by the workload's score: the fraction of images labelled right unless
            the workload names another; `None` if unknown.
        dense_accuracy: the same without reuse.
        agreement: fraction of images, or of pixels, on which reuse and dense agree; `None` if the
            model was not run.
        output_mse: mean squared difference of the model's outputs; `None` likewise.
        error_bound: the error analysis, if it was asked for; see `simulator.error_bound`.
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
    error_bound: ErrorBound | None = None
    pixels: PixelAnswers | None = None

    @property
    def designs(self) -> dict[str, DesignReport]:
        """The three designs by name."""
        return {
            "dense": self.dense,
            "dense_equal_area": self.dense_equal_area,
            "reuse": self.reuse,
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
    def verdict(self) -> str:
        """One sentence: does reuse pay here, and what bounds it."""
        if not self.reuse.accelerator.has_reuse:
            return (
                f"{self.reuse.accelerator.name} runs dense: "
                f"{self.reuse.latency_ms_per_image:.3g} ms and "
                f"{self.reuse.energy_uj_per_image:.3g} uJ per image; bound by "
                f"{self.reuse.bound_by.replace('_', '-')}.{self._not_counted}"
            )
        faster, less = self.speedup_equal_area > 1, self.energy_ratio_equal_area < 1
        pays = {
            (True, True): "Reuse pays",
            (True, False): "Reuse pays in time but not in energy",
            (False, True): "Reuse pays in energy but not in time",
            (False, False): "Reuse does not pay",
        }[faster, less]
        lost, quality = self._lost
        # 1 - 0.98 is a little more than 0.02 in binary; fractions of images are coarser.
        if lost is not None and lost > ACCURACY_DROP + 1e-9:
            pays = "Reuse costs too much accuracy"
        return (
            f"{pays} here: {self.speedup_equal_area:.2f}x the speed and "
            f"{self.energy_ratio_equal_area:.2f}x the energy of a dense design of equal area "
            f"({self.speedup_equal_array:.2f}x and {self.energy_ratio_equal_array:.2f}x of one "
            f"with the same array){quality}; bound by {self.reuse.bound_by.replace('_', '-')}."
            f"{self._not_counted}"
        )

    @property
    def _not_counted(self) -> str:
        """What the workload lacks, as a sentence more."""
        line = not_counted_line(self.workload)
        return f" {line}" if line else ""

    @property
    def _lost(self) -> tuple[float | None, str]:
        """Fraction of answers lost to reuse, `None` if unknown, and that in words."""
        if self.accuracy is not None and self.dense_accuracy is not None:
            change = self.accuracy - self.dense_accuracy
            score = SCORE_NAMES[self.workload.get("score", "accuracy")]
            return -change, f", {score} {100 * self.accuracy:.1f} % ({100 * change:+.1f} points)"
        if self.agreement is not None:
            agree = f", {100 * self.agreement:.1f} % of outputs agree with the dense model's"
            return 1 - self.agreement, agree
        return None, ", accuracy unknown (the model was not run)"

    def to_dict(self) -> dict:
        """Everything but the pictures, as plain values for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "verdict": self.verdict,
            "speedup_equal_array": self.speedup_equal_array,
            "speedup_equal_area": self.speedup_equal_area,
            "energy_ratio_equal_array": self.energy_ratio_equal_array,
            "energy_ratio_equal_area": self.energy_ratio_equal_area,
            "accuracy": self.accuracy,
            "dense_accuracy": self.dense_accuracy,
            "agreement": self.agreement,
            "output_mse": self.output_mse,
            "error_bound": self.error_bound and self.error_bound.to_dict(),
            "policy": self.policy,
            "workload": self.workload,
            "designs": {name: design.to_dict() for name, design in self.designs.items()},
        }

    def write_json(self, path: str | Path) -> Path:
        """Write `to_dict` to a file."""
        return write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")

    def rows(self) -> list[dict]:
        """A flat row for each design and layer, as `write_csv` writes them."""
        return [
            {"design": name, **row}
            for name, design in self.designs.items()
            for row in design.rows()
        ]

    def write_csv(self, path: str | Path) -> Path:
        """Write a row for each design and layer."""
        return write_rows(path, self.rows())

    def write_html(self, path: str | Path) -> Path:
        """Write a page that opens without a network: verdict, key numbers, plots, tables."""
        from simulator.report.simulation_page import simulation_html

        return write_atomically(path, simulation_html(self.to_dict(), pixels=self.pixels))
