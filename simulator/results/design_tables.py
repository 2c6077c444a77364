"""Layers and designs of a simulation as tables: columns, and rows of what is shown."""

# ruff: noqa: RUF001  readers see the multiplication sign

from collections.abc import Mapping
from typing import Any

from simulator.results.differences import ratio_text
from simulator.results.lookup import equal_area_design, given_design, reuse_parts, reuses
from simulator.results.names import limit_name
from simulator.results.tables import column, percent

_LAYER_TEXT = (
    "Each layer is a product of an m × k matrix of activations by a k × n matrix of weights. "
)
_LAYER_COLUMN = column("layer", "Layer", text=True)
_SHAPE_COLUMN = column("shape", "m × k × n", "whole batch")
_BOUND_COLUMN = column("bound", "Bound by", text=True)
_UTILIZATION_COLUMN = column("utilization", "Utilization", "% of the array's peak")


def _layer_cells(layer: Mapping[str, Any], design: Mapping[str, Any]) -> dict[str, Any]:
    """What both tables of layers say of one."""
    count = f"{layer['count']} × " if layer["count"] > 1 else ""
    return {
        "layer": layer["layer"],
        "shape": f"{count}{layer['m']:,} × {layer['k']:,} × {layer['n']:,}",
        "bound": limit_name(layer["bound_by"], design["accelerator"]),
    }


LAYERS_TEXT = (
    f"{_LAYER_TEXT}Clusters left is the share of sub-vectors that are still multiplied (r_c in the "
    "literature); a dash means that the layer runs dense. Error is the mean squared error of the "
    "layer's result over the mean square of the dense result on the same input."
)
LAYER_COLUMNS = [
    _LAYER_COLUMN,
    _SHAPE_COLUMN,
    column("remaining", "Clusters left", "%"),
    column("error", "Error", "%"),
    column("dense", "Dense, equal area", "cycles per image"),
    column("reuse", "With reuse", "cycles per image"),
    column("speedup", "Speed", "× dense, equal area"),
    _BOUND_COLUMN,
    column("energy", "Energy", "µJ per image"),
]


def layer_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each layer, then for each unit that works above them."""
    reuse, equal = given_design(report), equal_area_design(report)
    rows = []
    for layer, dense in zip(reuse["layers"], equal["layers"], strict=True):
        rows.append(
            {
                **_layer_cells(layer, reuse),
                "remaining": percent(layer["remaining_ratio"]),
                "error": None if layer["relative_mse"] is None else 100 * layer["relative_mse"],
                "dense": round(dense["cycles"] / equal["images"]),
                "reuse": round(layer["cycles"] / reuse["images"]),
                "speedup": ratio_text(dense["cycles"] / layer["cycles"]),
                "energy": sum(layer["energy_pj"].values()) * 1e-6 / reuse["images"],
            }
        )
    return rows + [_above_row(each, reuse) for each in reuse.get("above", ())]


def _above_row(spent: Mapping[str, Any], design: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a unit that works above the layers."""
    return dict.fromkeys(column["key"] for column in LAYER_COLUMNS) | {
        "layer": f"{limit_name(spent['unit'], design['accelerator'])}, on frames",
        "reuse": round(spent["cycles"] / design["images"]),
        "bound": limit_name(spent["bound_by"], design["accelerator"]),
        "energy": sum(spent["energy_pj"].values()) * 1e-6 / design["images"],
    }


DENSE_LAYERS_TEXT = (
    f"{_LAYER_TEXT}Compute cycles are those of the array alone on the whole product, as SCALE-Sim "
    "counts them, over the images; the time includes tiles, transfers and waiting."
)
DENSE_LAYER_COLUMNS = [
    _LAYER_COLUMN,
    _SHAPE_COLUMN,
    column("compute", "Compute cycles", "per image"),
    column("cycles", "Time", "cycles per image"),
    _UTILIZATION_COLUMN,
    _BOUND_COLUMN,
    column("traffic", "DRAM traffic", "KiB per image"),
    column("energy", "Energy", "µJ per image"),
]


def layer_table(report: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Columns and rows of the table of layers: under reuse beside dense, or dense alone."""
    design = given_design(report)
    if reuse_parts(design) or reuses(report):
        return LAYER_COLUMNS, layer_rows(report)
    images = design["images"]
    return DENSE_LAYER_COLUMNS, [
        {
            **_layer_cells(layer, design),
            "compute": round(layer["compute_cycles"] / images),
            "cycles": round(layer["cycles"] / images),
            "utilization": percent(layer["utilization"]),
            "traffic": sum(layer["dram_bytes"].values()) / 1024 / images,
            "energy": sum(layer["energy_pj"].values()) * 1e-6 / images,
        }
        for layer in design["layers"]
    ]


DESIGN_COLUMNS = [
    column("label", "Design", text=True),
    column("array", "Array", "rows × columns"),
    column("buffers", "Buffers", "KiB activations, weights, outputs"),
    column("area", "Area", "mm²"),
    column("cycles", "Time", "cycles per image"),
    column("time", "Time", "ms per image"),
    column("energy", "Energy", "µJ per image"),
    _UTILIZATION_COLUMN,
    _BOUND_COLUMN,
]


def design_row(label: str, design: Mapping[str, Any]) -> dict[str, Any]:
    """A design in a line."""
    described = design["accelerator"]
    buffers = ("activation_buffer", "weight_buffer", "output_buffer")
    return {
        "label": label,
        "array": f"{described['array']['rows']} × {described['array']['columns']}",
        "buffers": ", ".join(f"{described[name]['capacity_bytes'] / 1024:g}" for name in buffers),
        "area": design["area_mm2"],
        "cycles": round(design["cycles"] / design["images"]),
        "time": design["latency_ms_per_image"],
        "energy": design["energy_uj_per_image"],
        "utilization": percent(design["utilization"]),
        "bound": limit_name(design["bound_by"], described),
    }
