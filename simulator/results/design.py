"""The result of running one workload on one design."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from accelerators import Accelerator, area_by_part
from simulator.results.costs import cost_sources, energy_by_part
from simulator.results.rows import write_rows
from simulator.timing.dataflows.dataflow import gemm_cycles
from simulator.timing.layer import LayerTiming, Timing
from simulator.timing.schedule import LIMITS, most_blamed, with_own
from workloads.traces.layer import Layer

# Of the rows of a CSV file, which are totals.
_PER_BATCH = {"cycles": "cycles_per_batch", "macs": "macs_per_batch"}

Amount = TypeVar("Amount", int, float)


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One layer on one design.

    Attributes:
        layer: its name and shape.
        timing: cycles and actions.
        energy_pj: part -> energy, with `leakage` over the layer's cycles.
        utilization: multiply-accumulates done over those the array could have done in the time.
        remaining_ratio: r_c, centroid sub-vectors over sub-vectors; `None` where it ran dense.
        relative_mse: error of the layer's result, see `ReuseRun`; `None` where it ran dense.
    """

    layer: Layer
    timing: LayerTiming
    energy_pj: dict[str, float]
    utilization: float
    remaining_ratio: float | None = None
    relative_mse: float | None = None


@dataclass(frozen=True, kw_only=True)
class AboveReport:
    """What a unit does above the layers, on whole frames.

    Attributes:
        unit: the field of the design.
        timing: cycles and actions.
        energy_pj: part -> energy, with `leakage` over these cycles.
    """

    unit: str
    timing: Timing
    energy_pj: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class DesignReport:
    """One design running all layers, one after the other, and what is done above them.

    Attributes:
        accelerator: the design.
        layers: in the order in which they run.
        above: what is done for decisions above the layers; most often nothing.
        images: inputs in the batch that these cycles and energies are for.
    """

    accelerator: Accelerator
    layers: tuple[LayerReport, ...]
    above: tuple[AboveReport, ...] = ()
    images: int

    @classmethod
    def of(
        cls,
        accelerator: Accelerator,
        timings: list[tuple[Layer, LayerTiming]],
        images: int,
        quality: Mapping[str, Mapping[str, float | None]] | None = None,
        *,
        above: Iterable[tuple[str, Timing]] = (),
    ) -> "DesignReport":
        """Price the timings of all layers, and of what is done above them."""
        units = accelerator.array.rows * accelerator.array.columns
        return cls(
            accelerator=accelerator,
            layers=tuple(
                LayerReport(
                    layer=layer,
                    timing=timing,
                    energy_pj=energy_by_part(accelerator, timing.actions, timing.cycles),
                    utilization=timing.macs / (units * timing.cycles),
                    **(quality or {}).get(layer.name, {}),
                )
                for layer, timing in timings
            ),
            above=tuple(
                AboveReport(
                    unit=unit,
                    timing=timing,
                    energy_pj=energy_by_part(accelerator, timing.actions, timing.cycles),
                )
                for unit, timing in above
            ),
            images=images,
        )

    @property
    def _all(self) -> tuple[AboveReport | LayerReport, ...]:
        """All that takes time: what is done above the layers, then these."""
        return (*self.above, *self.layers)

    @cached_property
    def cycles(self) -> int:
        """Cycles of the whole batch."""
        return sum(each.timing.cycles for each in self._all)

    @cached_property
    def busy_cycles(self) -> dict[str, int]:
        """Block -> cycles in which it works; blocks overlap, so these do not add up to `cycles`."""
        return _sum_of(each.timing.busy_cycles for each in self._all)

    @cached_property
    def critical_cycles(self) -> dict[str, int]:
        """Limit -> cycles of the critical path that it is to blame for; they add up to `cycles`."""
        return _sum_of(each.timing.critical_cycles for each in self._all)

    @cached_property
    def dram_bytes(self) -> dict[str, int]:
        """Kind, see `LayerTiming` -> bytes to and from the DRAM."""
        return _sum_of(each.timing.dram_bytes for each in self._all)

    @property
    def kept_bytes(self) -> int:
        """Memory for what is kept from frame to frame, of all layers and above them."""
        return sum(each.timing.kept_bytes for each in self._all)

    @property
    def bound_by(self) -> str:
        """The limit to blame for most of the cycles."""
        return most_blamed(self.critical_cycles)

    @cached_property
    def energy_pj(self) -> dict[str, float]:
        """Part -> energy of the whole batch."""
        return _sum_of(each.energy_pj for each in self._all)

    @cached_property
    def total_energy_pj(self) -> float:
        """Energy of the whole batch, the sum of all parts."""
        return sum(self.energy_pj.values())

    @property
    def area_by_part_mm2(self) -> dict[str, float]:
        """Part -> area on the chip; DRAM is outside."""
        return area_by_part(self.accelerator)

    @cached_property
    def area_mm2(self) -> float:
        """Area of the chip, the sum of its parts."""
        return sum(self.area_by_part_mm2.values())

    @property
    def utilization(self) -> float:
        """Multiply-accumulates done over those the array could have done."""
        units = self.accelerator.array.rows * self.accelerator.array.columns
        return sum(layer.timing.macs for layer in self.layers) / (units * self.cycles)

    @property
    def latency_ms_per_image(self) -> float:
        """Time of the batch over its images."""
        return self.cycles / self.accelerator.clock_hz * 1e3 / self.images

    @property
    def energy_uj_per_image(self) -> float:
        """Energy of the batch over its images."""
        return self.total_energy_pj * 1e-6 / self.images

    def to_dict(self) -> dict:
        """Everything as plain values for JSON."""
        return {
            "accelerator": self.accelerator.to_dict(),
            "images": self.images,
            "cycles": self.cycles,
            "busy_cycles": self.busy_cycles,
            "critical_cycles": self.critical_cycles,
            "bound_by": self.bound_by,
            "dram_bytes": self.dram_bytes,
            "kept_bytes": self.kept_bytes,
            "utilization": self.utilization,
            "latency_ms_per_image": self.latency_ms_per_image,
            "energy_uj_per_image": self.energy_uj_per_image,
            "energy_pj": self.energy_pj,
            "area_mm2": self.area_mm2,
            "area_by_part_mm2": self.area_by_part_mm2,
            "above": [_above_dict(each) for each in self.above],
            "layers": [self._layer_dict(layer) for layer in self.layers],
        }

    def rows(self) -> list[dict]:
        """A flat row for each layer, as `write_csv` writes them; then for each unit above them.

        `m`, `n`, `k` and `count` are the product's for the whole batch, and `compute_cycles` those
        of the array alone on it, without tiles and without reuse: what SCALE-Sim 3.0.0 calls
        compute cycles, one more than its "total cycles". What else is of the whole batch has
        `per_batch` in its name. `busy_...` cycles overlap; `blamed_...` add up to
        `cycles_per_batch`. A unit above the layers has no product: its sizes are 0.
        """
        rows = [self._row(self._layer_dict(layer)) for layer in self.layers]
        for each in self.above:
            nothing = dict.fromkeys(("m", "n", "k", "count", "compute_cycles"), 0)
            spent = _above_dict(each)
            named = {"layer": spent.pop("unit"), "kind": "above_layers"}
            quality = {"macs": 0, "utilization": 0.0, "remaining_ratio": None, "relative_mse": None}
            rows.append(self._row(named | nothing | spent | quality))
        return rows

    def write_csv(self, path: str | Path) -> Path:
        """Write a row for each layer, and each unit above them."""
        return write_rows(path, self.rows())

    def _row(self, row: dict) -> dict:
        energy, busy = row.pop("energy_pj"), row.pop("busy_cycles")
        blamed, moved = row.pop("critical_cycles"), row.pop("dram_bytes")
        del row["actions"]
        row = {_PER_BATCH.get(name, name): value for name, value in row.items()}
        # Every row has the columns of all layers.
        limits = with_own(LIMITS, self.critical_cycles)
        row |= {f"busy_{block}_cycles_per_batch": busy.get(block, 0) for block in self.busy_cycles}
        row |= {f"blamed_{limit}_cycles_per_batch": blamed.get(limit, 0) for limit in limits}
        row |= {f"dram_{kind}_bytes_per_batch": moved.get(kind, 0) for kind in self.dram_bytes}
        row["energy_uj_per_image"] = sum(energy.values()) * 1e-6 / self.images
        return row | {"images_per_batch": self.images} | cost_sources(self.accelerator)

    def _layer_dict(self, report: LayerReport) -> dict:
        gemm = report.layer.gemm
        occupancy, latency = gemm_cycles(self.accelerator.array, gemm.m, gemm.n, gemm.k)
        return {
            "layer": report.layer.name,
            "kind": report.layer.kind,
            "m": gemm.m,
            "n": gemm.n,
            "k": gemm.k,
            "count": gemm.count,
            "compute_cycles": gemm.count * occupancy + latency,
            **_spent(report.timing),
            "macs": report.timing.macs,
            "utilization": report.utilization,
            "remaining_ratio": report.remaining_ratio,
            "relative_mse": report.relative_mse,
            "energy_pj": report.energy_pj,
            "actions": _told_actions(report.timing),
        }


def _above_dict(report: AboveReport) -> dict:
    """What a unit did above the layers, as plain values."""
    return {
        "unit": report.unit,
        **_spent(report.timing),
        "energy_pj": report.energy_pj,
        "actions": _told_actions(report.timing),
    }


def _spent(timing: Timing) -> dict:
    """Cycles and bytes."""
    names = ("cycles", "busy_cycles", "critical_cycles", "bound_by", "dram_bytes", "kept_bytes")
    return {name: getattr(timing, name) for name in names}


def _told_actions(timing: Timing) -> dict[str, int]:
    """Actions by one name each."""
    return {f"{part}.{action}": count for (part, action), count in timing.actions.items()}


def _sum_of(amounts: Iterable[Mapping[str, Amount]]) -> dict[str, Amount]:
    """What each name has in all of them."""
    total: dict[str, Amount] = {}
    for each in amounts:
        for name, amount in each.items():
            total[name] = total.get(name, type(amount)(0)) + amount
    return total
