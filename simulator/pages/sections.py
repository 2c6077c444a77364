"""What the pages say of designs side by side: plots with their captions, what a limit means."""

from collections.abc import Mapping
from typing import Any

from simulator.pages.figures import (
    area_by_part,
    busy_by_layer,
    energy_by_part,
    time_by_limit,
    traffic_by_kind,
)
from simulator.pages.page import figure_html
from simulator.pages.roofline import roofline

# What a limit that sets the pace means, and what would help.
BOUND_MEANS = {
    "dram": (
        "DRAM transfers set the pace: data that does not fit the buffers travels out and back. "
        "Larger buffers or more bandwidth would help more than a faster array."
    ),
    "front_end": (
        "The hash front-end sets the pace: every sub-vector has to be hashed, alike or not. More "
        "lanes or longer sub-vectors would help."
    ),
    "cache": (
        "The centroid cache sets the pace: each signature is looked up, and the table is cleared "
        "for every sub-matrix. More accesses a cycle, faster clearing or longer sub-vectors "
        "would help."
    ),
    "array": (
        "The systolic array sets the pace: multiplying what is left takes longest. A larger array "
        "or fewer clusters would help."
    ),
    "reconstructor": (
        "The reconstructor sets the pace: every row gathers one result for each sub-vector. More "
        "ports, a wider one or longer sub-vectors would help."
    ),
    "activation_buffer": (
        "The activation buffer sets the pace: its ports read activations more slowly than the "
        "blocks behind could take them, or it holds so few that rows are cut into tiles, each of "
        "which fills and drains the array. Wider or more ports, or more capacity, would help."
    ),
    "weight_buffer": (
        "The weight buffer sets the pace: the array waits for its ports. Wider or more ports, or "
        "fewer and larger products, would help."
    ),
    "centroid_buffer": (
        "The centroid buffer sets the pace: centroids and their results pass its ports on the way "
        "to the array and to the reconstructor. Wider or more ports would help."
    ),
    "output_buffer": (
        "The output buffer sets the pace: its ports read and write back partial sums for every "
        "fold, or it holds so few that rows are cut into tiles, each of which fills and drains the "
        "array. Wider or more ports, an array with more rows, or more capacity, would help."
    ),
}

CAPTIONS = {
    "time": (
        "Each bar is one design. Every cycle is blamed on one limit, by walking back from the end "
        "along what was waited for; so, unlike busy cycles, the pieces do add up to the total. "
        "Relieving the largest piece helps most. Shorter is faster."
    ),
    "busy": (
        "Bars are cycles in which a block works; blocks work at the same time, so bars do not add "
        "up. The line across is the time that the layer takes. A bar that reaches the line is the "
        "bottleneck; a line far above all bars is time lost waiting, for example while the "
        "pipeline fills and drains."
    ),
    "roofline": (
        "Each point is a layer: right does more work for a byte from the DRAM, up is faster. The "
        "roofs are the DRAM's bandwidth (slanted) and the array's peak (flat); a layer far below "
        "both is held up by something else. Under reuse a layer has two points, joined by a line: "
        "the filled one counts the dense layer's work and may pass the array's peak, the open one "
        "what the array did."
    ),
    "traffic": (
        "Bytes to and from the DRAM. Inputs and weights include what is loaded again because it "
        "does not fit its buffer; spilled sums and results of clusters travel out and back. Less "
        "is better."
    ),
    "energy": (
        "Energy per image, stacked by the part that takes it. DRAM is the energy of moving data on "
        "and off the chip; leakage is what all parts lose over the time they are on. Lower is "
        "better."
    ),
    "area": (
        "Silicon area, stacked by part. The dense design of equal area spends the area of the "
        "reuse units on a larger array or larger buffers."
    ),
}


def design_sections(
    designs: Mapping[str, Any], panels: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The plots that compare designs: title, a sentence and the figure of each.

    Args:
        designs: label -> a design as `DesignReport.to_dict` gives it.
        panels: those worth a panel of their own in plots of layers; all by default.
    """
    panels = panels or designs
    plots = {
        "time": (
            "Where the time goes",
            "Cycles to run all layers for one image, in each of the designs.",
            time_by_limit(designs),
        ),
        "busy": (
            "How busy each block is",
            "What each layer takes, and how close each block is to working all the time.",
            busy_by_layer(panels),
        ),
        "roofline": (
            "What the array and the DRAM allow",
            "Layers below the roofs of their design, in multiply-accumulates (MACs).",
            roofline(panels),
        ),
        "traffic": (
            "What moves to and from the DRAM",
            "Data that does not fit the buffers travels more than once.",
            traffic_by_kind(designs),
        ),
        "energy": (
            "Where the energy goes",
            "Every action of every part is counted and priced by the cost table named at the end "
            "of this page.",
            energy_by_part(designs),
        ),
        "area": (
            "Where the area goes",
            "The chip of each design; DRAM is outside.",
            area_by_part(designs),
        ),
    }
    return [
        {"title": title, "text": text, "figure": figure_html(figure, name, CAPTIONS[name])}
        for name, (title, text, figure) in plots.items()
    ]
