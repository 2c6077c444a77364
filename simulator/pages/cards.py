"""The key numbers of a simulation: each with its unit and what it is compared with."""

# ruff: noqa: RUF001  readers see the multiplication sign

from collections.abc import Mapping
from typing import Any

from simulator.pages.page import card
from simulator.results.differences import (
    RESOLUTION_TEXT,
    against_one,
    level_note,
    ratio_text,
    tone,
)
from simulator.results.lookup import equal_area_design, given_design, reuse_parts, reuses
from simulator.results.tables import number, percent
from workloads.traces.scores import score_meaning, score_name

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


def key_numbers(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The cards below the verdict: each number with its unit and what it is compared with."""
    reuse, equal = given_design(report), equal_area_design(report)
    if not reuse_parts(reuse) and not reuses(report):
        return [
            card("Time", number(reuse["latency_ms_per_image"]), "ms per image", "dense, no reuse"),
            card("Energy", number(reuse["energy_uj_per_image"]), "µJ per image", "with DRAM"),
            card("Area", number(reuse["area_mm2"]), "mm²", "without DRAM"),
            card("Utilization", percent(reuse["utilization"]), "%", "of the array's peak"),
        ]
    units = sum(reuse["area_by_part_mm2"][part] for part in reuse_parts(reuse))
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
