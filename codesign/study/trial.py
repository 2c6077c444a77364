"""One setting that a search tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STATES = ("complete", "infeasible", "failed", "running")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting that was tried.

    Attributes:
        number: from 0, in the order of asking.
        state: `complete`; `infeasible`, breaks a rule of the hardware or a stated constraint;
            `failed`, an error while it was evaluated; or `running`, asked for but not evaluated
            yet.
        origin: `paper`, the setting of Deep Reuse for CifarNet; `start`, that of another network;
            `dense`, the base design without reuse units; `dense_equal_area`, the fastest dense
            design of the base design's area; `error_0.08` and the like, the start where so much
            error of the answers is borne, see `codesign.evaluation.allotting`; `start_low` and
            `start_high`, where groups share a third and two thirds of what they can; `sampler`;
            or `neighbour`, a setting near the one that the sampler asked for, which had been tried
            before.
        parameters: name -> value.
        values: objective -> value; `None` unless complete.
        summary: `SimulationReport.to_dict()` without action counts and provenance; empty where
            nothing could be simulated.
        reason: why it is infeasible (the violated rules or constraints) or failed (the traceback);
            else `None`.
        repeat_of: number of the earlier trial with the same design that answered it, or `None`.
        seconds: time of the evaluation, 0 for a repeat.
        images: how many it was judged on; `None` where it was not judged.
        excess: stated limit -> by how much it is exceeded, in its unit; at most 0 where it is kept.
    """

    number: int
    state: str
    origin: str
    parameters: Mapping[str, Any]
    values: Mapping[str, float] | None = None
    summary: Mapping[str, Any]
    reason: str | None = None
    repeat_of: int | None = None
    seconds: float = 0.0
    images: int | None = None
    excess: Mapping[str, float] = field(default_factory=dict)
