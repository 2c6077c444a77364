"""Looks designs up in a report's plain values, of this format or of those before."""

from collections.abc import Mapping
from typing import Any

from accelerators.accelerator import described_parts

# Of `SimulationReport.to_dict`: 2 names the design as given, 3 calls two blocks by their units.
FORMAT_VERSION = 3
_BLOCKS_OF_BEFORE = {"memory": "dram", "reconstruction": "reconstructor"}

# What the design as given is called among `designs`, by what it does.
DENSE, IDLE, REUSE = "dense", "reuse_units_idle", "reuse"


def in_present_names(report: Any) -> Any:
    """A report as this program would name what is in it; what is no report stays as it is."""
    is_report = isinstance(report, Mapping)
    if not is_report or report.get("format_version") not in range(1, FORMAT_VERSION):
        return report
    verdict = report.get("verdict")
    if type(verdict) is str:
        for old, new in _BLOCKS_OF_BEFORE.items():
            verdict = verdict.replace(f"; bound by {old}.", f"; bound by {new}.")
    designs = _renamed(report.get("designs"))
    return {**report, "verdict": verdict, "designs": designs, "format_version": FORMAT_VERSION}


def _renamed(value: Any, holder: str = "") -> Any:
    """The same for what is held under a name, whatever it is."""
    if type(value) is list:
        return [_renamed(each, holder) for each in value]
    if holder == "bound_by" and type(value) is str:
        return _BLOCKS_OF_BEFORE.get(value, value)
    if type(value) is not dict:
        return value
    names = _BLOCKS_OF_BEFORE if holder in ("busy_cycles", "critical_cycles") else {}
    if {*names.values()} & {*value}:  # nobody wrote both
        return value
    return {names.get(key, key): _renamed(each, key) for key, each in value.items()}


def given_design(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The design as given, of a report as `SimulationReport.to_dict` has it, or had it before."""
    return report["designs"][report.get("design", REUSE)]


def reuses(report: Mapping[str, Any]) -> bool:
    """Whether anything is reused on the design as given; reports of before are asked for layers."""
    design = given_design(report)
    found = any(layer["remaining_ratio"] is not None for layer in design["layers"])
    return found or bool(design.get("above"))


def equal_area_design(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The dense design of equal area likewise: without reuse units, the design itself."""
    return report["designs"].get("dense_equal_area", given_design(report))


def reuse_parts(design: Mapping[str, Any]) -> list[str]:
    """The parts of a design that exploit redundancy."""
    parts = described_parts(design["accelerator"])
    return [name for name, part in parts.items() if part.exploits]
