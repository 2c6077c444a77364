"""The page of one simulation: a workload on a design and on its two dense baselines."""

# ruff: noqa: RUF001  readers see the multiplication sign

from collections.abc import Mapping
from typing import Any

from jinja2 import DictLoader

from accelerators import Accelerator
from simulator.pages.error_section import ERROR_COLUMNS, error_rows, error_text
from simulator.pages.figures import LIMIT_NAMES
from simulator.pages.page import card, column, named, number, percent, render
from simulator.pages.pixel_answers import PixelAnswers, pixel_answers_html
from simulator.pages.sections import BOUND_MEANS, design_sections
from simulator.results.costs import dram_with_energy, table_with_source
from simulator.results.differences import (
    RESOLUTION_TEXT,
    against_one,
    level_note,
    ratio_text,
    tone,
)
from simulator.results.lookup import (
    DENSE,
    IDLE,
    REUSE,
    equal_area_design,
    given_design,
    in_present_names,
)
from simulator.results.weights import headline_name, weights_line
from workloads.traces.judged import JUDGED, judged_text
from workloads.traces.scores import score_meaning, score_name
from workloads.traces.trace import not_counted_line

_TEMPLATE = """{% extends "page.html" %}
{% import "macros.html" as parts %}
{% block content %}
{% if back %}<p><a href="{{ back }}">Back to the search</a></p>{% endif %}
{{ parts.verdict(verdict, bound) }}
{{ parts.cards(cards) }}
{% if ratios_text %}<p class="note">{{ ratios_text }}</p>{% endif %}
{% if pixels %}
<h2>What the network sees</h2>
{{ pixels }}
{% endif %}
{% for section in sections %}
<h2>{{ section.title }}</h2>
<p>{{ section.text }}</p>
{{ section.figure }}
{% endfor %}
<h2>Layer by layer</h2>
<p>{{ layers_text }}</p>
{{ parts.table(layer_columns, layer_rows) }}
{% if error_rows %}
<h2>Error bound and error</h2>
<p>{{ error_text }}</p>
{{ parts.table(error_columns, error_rows) }}
{% endif %}
<h2>The designs</h2>
{{ parts.table(design_columns, design_rows) }}
<details><summary>The design as Python</summary><pre id="design">{{ python }}</pre></details>
<h2>How these numbers were made</h2>
{{ parts.facts(facts) }}
{% endblock %}
{% block footer %}Cycles, energy and accuracy follow from the same decisions.{% endblock %}
"""

DESIGN_LABELS = {
    "dense": "dense, same array",
    "dense_equal_area": "dense, equal area",
    REUSE: "with reuse",
    IDLE: "with reuse units, idle",
}
UNITS_TEXT = (
    "Time, energy and traffic are per image, the mean of the batch, unless a unit says whole batch."
)
# What the words of a comparison mean, once a page.
RATIOS_TEXT = (
    "The dense design of equal area has no reuse units and spends their silicon on a larger array "
    "and larger buffers: the fastest such design found. That of the same array leaves the reuse "
    "units out and is smaller. Speed is the dense design's time over this one's, energy this one's "
    f"over the dense design's, DRAM included. {RESOLUTION_TEXT}. Points are percentage points of "
    f"accuracy. {UNITS_TEXT}"
)


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
    context = {
        "kind": kind,
        "back": back,
        "title": f"{headline_name(report['workload'])} on {accelerator.name}",
        "subtitle": workload_line(report["workload"], reuse["images"]),
        "verdict": report["verdict"],
        "bound": BOUND_MEANS[reuse["bound_by"]],
        "cards": key_numbers(report),
        "ratios_text": RATIOS_TEXT if accelerator.has_reuse else UNITS_TEXT,
        "pixels": pixels and pixel_answers_html(pixels, pixels_text(report)),
        "sections": design_sections(designs),
        "layers_text": LAYERS_TEXT if accelerator.has_reuse else DENSE_LAYERS_TEXT,
        "layer_columns": columns,
        "layer_rows": rows,
        "design_columns": DESIGN_COLUMNS,
        "design_rows": [design_row(label, design) for label, design in designs.items()],
        "python": python or accelerator.to_python(),
        **error_context(report.get("error_bound")),
        "facts": facts(report["workload"], accelerator, {"policy": report["policy"]}),
    }
    loader = DictLoader({"simulation.html": _TEMPLATE})
    return render("simulation.html", loader, context, plotly_file=plotly_file)


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
    if given["accelerator"]["front_end"] is None:
        return {DENSE: given}
    designs = report["designs"]
    return {label: designs[name] for name, label in DESIGN_LABELS.items() if name in designs}


def workload_line(workload: Mapping[str, Any], images: int) -> str:
    """What was run, in a line: weights that are or may be random, and which output is judged."""
    source, weights = workload.get("source"), weights_line(workload)
    batch = "One image" if images == 1 else f"A batch of {images} images"
    drawn = f", {weights}" if weights else ""
    left_out = not_counted_line(workload).removesuffix(".")
    more = f"; {left_out[0].lower()}{left_out[1:]}" if left_out else ""
    judged = judged_text(workload)
    told = judged and f"; judged: {judged}"
    return f"{batch}{f' from {source}' if source else ''}{drawn}{told}{more}"


def key_numbers(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The cards below the verdict: each number with its unit and what it is compared with."""
    reuse, equal = given_design(report), equal_area_design(report)
    if reuse["accelerator"]["front_end"] is None:
        return [
            card("Time", number(reuse["latency_ms_per_image"]), "ms per image", "dense, no reuse"),
            card("Energy", number(reuse["energy_uj_per_image"]), "µJ per image", "with DRAM"),
            card("Area", number(reuse["area_mm2"]), "mm²", "without DRAM"),
            card("Utilization", percent(reuse["utilization"]), "%", "of the array's peak"),
        ]
    units = sum(
        reuse["area_by_part_mm2"][part]
        for part in ("front_end", "cache", "centroid_buffer", "reconstructor")
    )
    left = sum(layer["macs"] for layer in reuse["layers"])
    dense = sum(layer["macs"] for layer in report["designs"]["dense"]["layers"])
    return [
        speed_card("Speed against dense", report),
        energy_card("Energy against dense", report),
        quality_card(report),
        *per_image_cards(reuse, equal),
        card(
            "Area",
            number(reuse["area_mm2"]),
            "mm²",
            f"{percent(units / reuse['area_mm2'])} % of it for the reuse units",
        ),
        card(
            "Multiplications left",
            percent(left / dense),
            "%",
            "of those of the dense model; 100 % is no reuse",
        ),
    ]


def speed_card(name: str, report: Mapping[str, Any]) -> dict[str, str]:
    """Speed against both dense designs."""
    speedup = report["speedup_equal_area"]
    return card(
        name,
        f"{ratio_text(speedup)}×",
        "",
        f"dense design of equal area = 1; {ratio_text(report['speedup_equal_array'])}× against the "
        "same array without reuse. Above 1 is faster",
        tone(against_one(speedup)),
    )


def energy_card(name: str, report: Mapping[str, Any]) -> dict[str, str]:
    """Energy against both dense designs."""
    energy = report["energy_ratio_equal_area"]
    return card(
        name,
        f"{ratio_text(energy)}×",
        "",
        "dense design of equal area = 1; "
        f"{ratio_text(report['energy_ratio_equal_array'])}× of the same array without reuse. "
        "Below 1 is less",
        tone(-against_one(energy)),
    )


def per_image_cards(reuse: Mapping[str, Any], equal: Mapping[str, Any]) -> list[dict[str, str]]:
    """Time and energy of an image, the dense design of equal area beside them."""
    return [
        card(
            "Time per image",
            number(reuse["latency_ms_per_image"]),
            "ms",
            f"dense of equal area: {number(equal['latency_ms_per_image'])} ms",
        ),
        card(
            "Energy per image",
            number(reuse["energy_uj_per_image"]),
            "µJ",
            f"dense of equal area: {number(equal['energy_uj_per_image'])} µJ",
        ),
    ]


def quality_card(report: Mapping[str, Any]) -> dict[str, str]:
    """Accuracy if labels are known, else agreement with the dense model, else an error."""
    judged = report.get("judged", "") and f"; judged: {report['judged']}"
    unjudged = report.get("unjudged", "")
    if report["accuracy"] is not None and report["dense_accuracy"] is not None:
        name = (report.get("workload") or {}).get("score", "accuracy")
        told = [score_meaning(name), f"the dense model: {percent(report['dense_accuracy'])} %"]
        return card(
            score_name(name)[0].upper() + score_name(name)[1:],
            percent(report["accuracy"]),
            "%",
            "; ".join([*told, *interval_texts(report, "accuracy")]) + judged,
        )
    if report["agreement"] is not None:
        return card(
            "Agreement",
            percent(report["agreement"]),
            "%",
            "; ".join(
                [
                    "of answers, one an image, a pixel or a position, are the dense model's"
                    f"{judged}",
                    unjudged or "there are no labels",
                    *interval_texts(report, "agreement"),
                ]
            ),
        )
    if report.get("output_error") is not None:
        return card(
            "Error of the outputs",
            percent(report["output_error"]),
            "%",
            f"squared error over the squared dense outputs{judged}; accuracy is unknown: "
            f"{unjudged}",
        )
    errors = [layer["relative_mse"] for layer in given_design(report)["layers"]]
    worst = max((error for error in errors if error is not None), default=0.0)
    return card(
        "Largest layer error",
        percent(worst),
        "%",
        "squared error over the squared dense result; accuracy is unknown: "
        f"{unjudged or 'the model was not run'}",
    )


def interval_texts(report: Mapping[str, Any], name: str) -> list[str]:
    """The interval of a quality, if the report has it."""
    found = (report.get("intervals") or {}).get(name)
    return [level_note(found, given_design(report)["images"])] if found else []


def pixels_text(report: Mapping[str, Any]) -> str:
    """Speed, energy and quality of the pictures, in a sentence."""
    quality = quality_card(report)
    return (
        f"With reuse: {ratio_text(report['speedup_equal_area'])}× the speed and "
        f"{ratio_text(report['energy_ratio_equal_area'])}× the energy of a dense design of equal "
        f"area; {quality['name'].lower()} over all frames {quality['value']} %."
    )


_LAYER_TEXT = (
    "Each layer is a product of an m × k matrix of activations by a k × n matrix of weights. "
)
_LAYER_COLUMN = column("layer", "Layer", text=True)
_SHAPE_COLUMN = column("shape", "m × k × n", "whole batch")
_BOUND_COLUMN = column("bound", "Bound by", text=True)
_UTILIZATION_COLUMN = column("utilization", "Utilization", "% of the array's peak")


def _layer_cells(layer: Mapping[str, Any]) -> dict[str, Any]:
    """What both tables of layers say of one."""
    count = f"{layer['count']} × " if layer["count"] > 1 else ""
    return {
        "layer": layer["layer"],
        "shape": f"{count}{layer['m']:,} × {layer['k']:,} × {layer['n']:,}",
        "bound": LIMIT_NAMES[layer["bound_by"]],
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
    """A row for each layer."""
    reuse, equal = given_design(report), equal_area_design(report)
    rows = []
    for layer, dense in zip(reuse["layers"], equal["layers"], strict=True):
        rows.append(
            {
                **_layer_cells(layer),
                "remaining": percent(layer["remaining_ratio"]),
                "error": None if layer["relative_mse"] is None else 100 * layer["relative_mse"],
                "dense": round(dense["cycles"] / equal["images"]),
                "reuse": round(layer["cycles"] / reuse["images"]),
                "speedup": ratio_text(dense["cycles"] / layer["cycles"]),
                "energy": sum(layer["energy_pj"].values()) * 1e-6 / reuse["images"],
            }
        )
    return rows


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
    if design["accelerator"]["front_end"] is not None:
        return LAYER_COLUMNS, layer_rows(report)
    images = design["images"]
    return DENSE_LAYER_COLUMNS, [
        {
            **_layer_cells(layer),
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
        "bound": LIMIT_NAMES[design["bound_by"]],
    }


# Provenance of a trace -> how the page calls it.
_FACT_NAMES = {
    "source": "inputs",
    "seed": "seed of the capture",
    "precision": "computed in",
    "created": "captured at",
    "macs": "multiply-accumulates of the whole batch",
}


_TOLD_APART = ("versions", "zero_weights", "not_counted", "taken_apart", JUDGED, "call")


def facts(
    workload: Mapping[str, Any], accelerator: Accelerator, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Where the numbers come from: workload, clock, cost table and what else is given."""
    versions, zeros = workload.get("versions"), workload.get("zero_weights")
    told: dict[str, Any] = {
        _FACT_NAMES.get(key, key.replace("_", " ")): value
        for key, value in workload.items()
        if key not in _TOLD_APART and value not in (None, "")
    } | ({"captured with": named(versions)} if versions else {})
    for key, name in (("not_counted", "not counted"), ("taken_apart", "taken apart")):
        if isinstance(calls := workload.get(key), Mapping) and calls:
            told[name] = f"{named(calls)} calls"
    if judged := judged_text(workload, every=True):
        told["judged"] = judged
    if zeros:
        found = [percent(value) for value in (min(zeros.values()), max(zeros.values()))]
        told["weights that are 0"] = f"{' to '.join(found)} % of a layer's"
    return {
        **told,
        "clock": f"{accelerator.clock_hz / 1e6:g} MHz",
        "cost table": table_with_source(accelerator),
        "DRAM": (
            f"{dram_with_energy(accelerator.dram.kind)}, "
            f"{accelerator.dram.bandwidth_bytes_per_cycle:g} bytes per cycle"
        ),
        **more,
    }
