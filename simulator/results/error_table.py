"""The error analysis of a simulation, as a table: what reuse can do to the outputs and did."""

from collections.abc import Mapping
from typing import Any

from simulator.results.tables import column, number

ERROR_COLUMNS = [
    column("layer", "Layer", text=True),
    column("own", "Err_c", "the layer's input"),
    column("weights", "‖W‖", "largest singular value"),
    column("printed", "Equation (2)", "as printed"),
    column("bound", "Bound", "of this layer's reuse alone"),
]


def error_rows(bound: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each reused layer, and one for all.

    Args:
        bound: as `ErrorBound.to_dict` gives it.
    """
    rows = [
        {
            "layer": layer["layer"],
            "own": number(layer["centroid_error"]),
            "weights": number(layer["weight_norm"]),
            "printed": number(layer["equation_2"]),
            "bound": number(layer["rigorous"]),
        }
        for layer in bound["layers"]
        if layer["centroid_error"] != 0
    ]
    return [
        *rows,
        {
            "layer": "all layers",
            "printed": number(bound["equation_3"]),
            "bound": number(bound["rigorous"]),
        },
    ]


def error_text(bound: Mapping[str, Any]) -> str:
    """What was measured, and whether both bounds held."""
    held = {True: "holds", False: "does NOT hold"}
    measured, power = bound["measured"], bound["output_power"]
    share = measured / power if measured is not None and power else 0.0
    return (
        f"Error of the outputs, measured: {number(bound['measured'])} "
        f"({number(share)} of the dense outputs' sum of squares). Deep Reuse's equation (3) as "
        f"printed, {number(bound['equation_3'])}, {held[bound['equation_3_holds']]} here; the "
        f"rigorous bound, {number(bound['rigorous'])}, {held[bound['rigorous_holds']]}. All are "
        "sums of squares over the batch. Bounds assume that every error meets the worst direction "
        "in every layer, so they lie far above what happens."
    )
