"""The page of one simulation: a workload on a design and on its two dense baselines."""

from collections.abc import Mapping
from typing import Any

from accelerators import Accelerator
from simulator.analysis.pixel_answers import PixelAnswers
from simulator.pages.cards import RATIOS_TEXT, UNITS_TEXT, key_numbers, pixels_text
from simulator.pages.facts import facts, workload_line
from simulator.pages.page import TEMPLATES, render
from simulator.pages.pixel_answers import pixel_answers_html
from simulator.pages.sections import design_sections
from simulator.results.design_tables import (
    DENSE_LAYERS_TEXT,
    DESIGN_COLUMNS,
    LAYERS_TEXT,
    design_row,
    layer_table,
)
from simulator.results.error_table import ERROR_COLUMNS, error_rows, error_text
from simulator.results.lookup import (
    DENSE,
    IDLE,
    REUSE,
    given_design,
    in_present_names,
    reuse_parts,
    reuses,
)
from simulator.results.names import bound_means
from simulator.results.weights import headline_name

DESIGN_LABELS = {
    "dense": "dense, same array",
    "dense_equal_area": "dense, equal area",
    REUSE: "with reuse",
    IDLE: "with reuse units, idle",
}


def simulation_html(
    report: Mapping[str, Any],
    *,
    pixels: PixelAnswers | None = None,
    kind: str = "Simulation of similarity reuse",
    python: str | None = None,
    back: str | None = None,
    plotly_file: str | None = None,
) -> str:
    """The page of a simulation.

    Args:
        report: a report as `SimulationReport.to_dict` gives it, or gave it before.
        pixels: answers for pixels, shown as pictures.
        kind: of page, above its title.
        python: source text of the design; `None` makes that of the accelerator alone.
        back: address of a page that this one is a part of.
        plotly_file: as in `render`.
    """
    report = in_present_names(report)
    designs = labelled(report)
    reuse = given_design(report)
    accelerator = Accelerator.from_dict(reuse["accelerator"])
    columns, rows = layer_table(report)
    is_reuse = accelerator.has_reuse or reuses(report)
    context = {
        "kind": kind,
        "back": back,
        "title": f"{headline_name(report['workload'])} on {accelerator.name}",
        "subtitle": workload_line(report["workload"], reuse["images"]),
        "verdict": report["verdict"],
        "bound": bound_means(reuse["bound_by"], reuse["accelerator"]),
        "cards": key_numbers(report),
        "ratios_text": RATIOS_TEXT if is_reuse else UNITS_TEXT,
        "pixels": pixels and pixel_answers_html(pixels, pixels_text(report)),
        "sections": design_sections(designs),
        "layers_text": LAYERS_TEXT if is_reuse else DENSE_LAYERS_TEXT,
        "layer_columns": columns,
        "layer_rows": rows,
        "design_columns": DESIGN_COLUMNS,
        "design_rows": [design_row(label, design) for label, design in designs.items()],
        "python": python or accelerator.to_python(),
        **error_context(report.get("error_bound")),
        "facts": facts(
            report["workload"], accelerator, {"policy": report["policy"]} | _kept(reuse)
        ),
    }
    return render("simulation.html", TEMPLATES, context, plotly_file=plotly_file)


def _kept(design: Mapping[str, Any]) -> dict[str, str]:
    """What is kept from frame to frame, where anything is; old reports do not tell."""
    kept = design.get("kept_bytes", 0)
    return {"kept from frame to frame": f"{kept / 1024:,.4g} KiB"} if kept else {}


def error_context(bound: Mapping[str, Any] | None) -> dict[str, Any]:
    """The error analysis, where there is one."""
    if bound is None:
        return {"error_rows": []}
    return {
        "error_text": error_text(bound),
        "error_columns": ERROR_COLUMNS,
        "error_rows": error_rows(bound),
    }


def labelled(report: Mapping[str, Any]) -> dict[str, Any]:
    """The designs by their label; without reuse units there is one."""
    given = given_design(report)
    if not reuse_parts(given) and not reuses(report):
        return {DENSE: given}
    designs = report["designs"]
    return {label: designs[name] for name, label in DESIGN_LABELS.items() if name in designs}
