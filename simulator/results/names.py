"""What blocks, parts and kinds of traffic are called in words, and what a limit means."""

from collections.abc import Mapping
from typing import Any

from accelerators import Accelerator
from accelerators.accelerator import described_parts
from simulator.timing.schedule import LIMITS

_PARTS = Accelerator.parts()
# Blocks, then the ports and sizes of buffers: each is called as its unit.
LIMIT_NAMES = {limit: _PARTS[limit].words for limit in LIMITS} | {"dram": "DRAM transfers"}
# What takes energy or area, in the order of a bar's pieces.
PART_NAMES = {name: part.words for name, part in _PARTS.items()} | {"leakage": "leakage"}
TRAFFIC_NAMES = {
    "inputs": "inputs",
    "weights": "weights",
    "outputs": "outputs",
    "spilled_sums": "spilled sums of clusters",
    "spilled_results": "spilled results of clusters",
    "addresses": "lists of addresses",
    "kept_results": "results kept from before",
    "references": "inputs kept from before",
    "new_references": "inputs kept for later",
    "marks": "marks of changed rows",
    "orders": "orders of sums",
    "pixels": "pixels of frames",
    "stored_maps": "maps of key frames",
    "moved_maps": "moved maps",
    "remembered_inputs": "inputs remembered from frame to frame",
    "remembered_sums": "sums remembered from frame to frame",
}
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
    "neighbour_matcher": (
        "The neighbour matcher sets the pace: every vector is compared with its neighbours, and "
        "the means of a tile are handed on after it. More lanes, a smaller block or a wider unit "
        "would help."
    ),
    "feature_cache": (
        "The feature cache sets the pace: maps are summed up and compared with those of earlier "
        "images. More lanes or multipliers, or fewer entries, would help."
    ),
    "change_detector": (
        "The change detector sets the pace: every value of a frame is compared with that of an "
        "earlier one, and every changed row is listed. More lanes would help."
    ),
    "frame_differencer": (
        "The frame differencer sets the pace: every frame is compared with one that was held. More "
        "lanes, or looking at fewer frames, would help."
    ),
    "motion_estimator": (
        "The motion estimator sets the pace: every pixel of a frame is compared with the key "
        "frame's under every candidate vector. More adders, larger tiles, a larger step or a "
        "smaller radius would help."
    ),
    "warper": (
        "The warper sets the pace: every value that the layers that run need is made of four. "
        "More lanes, or a later target with a smaller map, would help."
    ),
    "leader_table": (
        "The leader table sets the pace: every vector is compared with the leaders before it. More "
        "lanes, fewer leaders or a wider unit would help."
    ),
    "difference_unit": (
        "The difference unit sets the pace: every input is compared with an earlier one, and marks "
        "of what differs are gathered. More lanes would help."
    ),
    "result_adder": (
        "The result adder sets the pace: every row that changed is added to its earlier result. A "
        "wider one would help."
    ),
    "state_buffer": (
        "The state buffer sets the pace: its ports move what is remembered from frame to frame. "
        "Wider or more ports would help."
    ),
    "range_table": (
        "The range table sets the pace: every element of a sub-vector becomes a range, and a "
        "stream's table travels for every sub-matrix. A wider unit or fewer sets would help."
    ),
    "result_cache": (
        "The result cache sets the pace: each signature is looked up, and the table is cleared for "
        "every sub-matrix. Faster clearing, fewer entries or longer sub-vectors would help."
    ),
    "sum_predictor": (
        "The sum predictor sets the pace: its network multiplies for every output that it judges. "
        "More multipliers, or more outputs computed without it, would help."
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


def limit_name(limit: str, described: Mapping[str, Any]) -> str:
    """What a limit is called, of a design as `Accelerator.to_dict` described it.

    A unit of the design's own has its own words, if its class was imported.
    """
    part = described_parts(described).get(limit)
    own = limit.replace("_", " ") if part is None else part.words
    return LIMIT_NAMES.get(limit, own)


def bound_means(limit: str, described: Mapping[str, Any]) -> str:
    """What a limit that sets the pace means, of a design likewise."""
    name = limit_name(limit, described)
    own = f"The {name} sets the pace: it is waited for longest. A faster one would help."
    return BOUND_MEANS.get(limit, own)
