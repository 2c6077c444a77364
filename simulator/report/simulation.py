"""The answer for one workload, one accelerator and one policy."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from simulator.report.design import DesignReport
from simulator.timing.schedule import BLOCKS

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class SimulationReport:
    """Speedup, energy, area and accuracy of one set of reuse decisions.

    Attributes:
        workload: the trace's provenance.
        policy: what decided, as plain values.
        reuse: the design as given, under the policy. A design without reuse units runs dense.
        dense: the dense design with the same array and buffers.
        dense_equal_area: the dense design that has the reuse units' area as well.
        accuracy: fraction of images labelled right under reuse; `None` if unknown.
        dense_accuracy: the same without reuse.
        agreement: fraction of images on which reuse and dense agree; `None` if the model was not
            run.
        output_mse: mean squared difference of the model's outputs; `None` likewise.
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
                f"{self.reuse.bound_by.replace('_', '-')}."
            )
        faster, less = self.speedup_equal_area > 1, self.energy_ratio_equal_area < 1
        pays = {
            (True, True): "Reuse pays",
            (True, False): "Reuse pays in time but not in energy",
            (False, True): "Reuse pays in energy but not in time",
            (False, False): "Reuse does not pay",
        }[faster, less]
        quality = ""
        if self.accuracy is not None and self.dense_accuracy is not None:
            change = 100 * (self.accuracy - self.dense_accuracy)
            quality = f", accuracy {100 * self.accuracy:.1f} % ({change:+.1f} points)"
        elif self.agreement is not None:
            quality = f", {100 * self.agreement:.1f} % of outputs agree with the dense model's"
        return (
            f"{pays} here: {self.speedup_equal_area:.2f}x the speed and "
            f"{self.energy_ratio_equal_area:.2f}x the energy of a dense design of equal area "
            f"({self.speedup_equal_array:.2f}x and {self.energy_ratio_equal_array:.2f}x of one "
            f"with the same array){quality}; bound by {self.reuse.bound_by.replace('_', '-')}."
        )

    def to_dict(self) -> dict:
        """Everything as plain values for JSON."""
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
            "policy": self.policy,
            "workload": self.workload,
            "designs": {name: design.to_dict() for name, design in self.designs.items()},
        }

    def write_json(self, path: str | Path) -> Path:
        """Write `to_dict` to a file."""
        path = Path(path)
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n")
        return path

    def rows(self) -> list[dict]:
        """A flat row for each design and layer, as `write_csv` writes them."""
        rows = []
        for name, design in self.designs.items():
            for layer in design.to_dict()["layers"]:
                busy, energy = layer.pop("busy_cycles"), layer.pop("energy_pj")
                del layer["actions"], layer["critical_cycles"]
                moved = layer.pop("dram_bytes")
                row = {"design": name, **layer}
                row |= {f"{block}_cycles": busy[block] for block in BLOCKS}
                row |= {f"dram_{what}_bytes": count for what, count in moved.items()}
                row["energy_pj"] = sum(energy.values())
                rows.append(row)
        return rows

    def write_csv(self, path: str | Path) -> Path:
        """Write a row for each design and layer."""
        path = Path(path)
        rows = self.rows()
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    def write_html(self, path: str | Path) -> Path:
        """Write a page that opens without a network: verdict, key numbers, plots, tables."""
        from simulator.report.simulation_page import simulation_html

        path = Path(path)
        path.write_text(simulation_html(self.to_dict()), encoding="utf-8")
        return path
