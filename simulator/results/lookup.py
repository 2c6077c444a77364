"""Looks designs up in a report's plain values, of this format or of the one before."""

from collections.abc import Mapping
from typing import Any

# What the design as given is called among `designs`, by what it does.
DENSE, IDLE, REUSE = "dense", "reuse_units_idle", "reuse"


def given_design(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The design as given, of a report as `SimulationReport.to_dict` has it, or had it before."""
    return report["designs"][report.get("design", REUSE)]


def reuses(report: Mapping[str, Any]) -> bool:
    """Whether anything is reused on the design as given; reports of before are asked for layers."""
    return any(layer["remaining_ratio"] is not None for layer in given_design(report)["layers"])


def equal_area_design(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The dense design of equal area likewise: without reuse units, the design itself."""
    return report["designs"].get("dense_equal_area", given_design(report))
