"""Where the numbers of a page come from: the workload in a line, and all that is known of it."""

from collections.abc import Mapping
from typing import Any

from accelerators import Accelerator
from simulator.results.costs import dram_with_energy, table_with_source
from simulator.results.tables import named, percent
from simulator.results.weights import weights_line
from workloads.traces.judged import JUDGED, judged_text
from workloads.traces.trace import not_counted_line

# Provenance of a trace -> how the page calls it.
_FACT_NAMES = {
    "source": "inputs",
    "seed": "seed of the capture",
    "precision": "computed in",
    "created": "captured at",
    "macs": "multiply-accumulates of the whole batch",
}
_TOLD_APART = ("versions", "zero_weights", "not_counted", "taken_apart", JUDGED, "call")


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
