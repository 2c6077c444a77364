"""Whether a search that goes on with a study is the one that began it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from accelerators import ConfigError
from accelerators.rules import show
from codesign.space.described import described_space
from workloads.errors import TraceError
from workloads.traces.judged import JUDGED, Judged
from workloads.traces.scores import OWN_SCORE

# What must be the same for a study to go on with the same numbers, and how to call it.
FIXED = {
    "seed": "seed",
    "batch": "batch",
    "space": "design space",
    "objectives": "objectives",
    "optimiser": "optimiser",
    "constraints": "constraints",
    "quality": "kind of accuracy",
    "digest": "workload (its weights and inputs)",
    "first_images": "number of images that every trial is judged on first",
    "calibrate_under_reuse": "choice of calibrating under reuse",
}
# Packages of which another version may give other numbers.
NUMBERS_OF = ("torch", "numpy", "scipy", "numba", "optuna")


def check_same_search(place: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """A study goes on only as what it began as; with other packages it may, with a warning.

    Args:
        place: of the study, for messages.
        stored: its specification.
        given: that of the search that would go on.

    Raises:
        ConfigError: they differ.
    """
    problems = []
    if isinstance(stored.get("space"), Mapping):
        # As it is described today: a design of an earlier version lacks units that came later.
        space = described_space(stored["space"]).to_dict()
        stored = {**stored, "space": json.loads(json.dumps(space))}  # lists for tuples
    for key, name in FIXED.items():
        if stored.get(key) != given[key]:
            shown = (
                f"{stored.get(key)!r}, got {given[key]!r}"
                if key in ("seed", "batch", "optimiser", "constraints", "quality")
                else ("what it was when the study began, got another")
            )
            problems.append(f"the {name} must be {shown}")
    # What another output or function judges is of the same kind, on the same inputs.
    for name, (was, now) in _judged_by(stored["workload"], given["workload"]).items():
        is_used = name != "score" or given["quality"] == OWN_SCORE
        if was != now and is_used:
            problems.append(f"the {name} must be {show(was)}, got {show(now)}")
    if problems:
        raise ConfigError([f"{place}: {each}; give the same, or another path" for each in problems])
    before, now = stored.get("versions", {}), given["versions"]
    changed = [
        f"{package} {before.get(package, 'unknown')} (now {now[package]})"
        for package in NUMBERS_OF
        if before.get(package) != now[package]
    ]
    if changed:
        warnings.warn(
            f"{place} was begun with {', '.join(changed)}: its new trials may have other "
            "numbers than if it had gone on with those",
            stacklevel=5,
        )


def _judged_by(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What `accuracy` is of -> as the study began, and as it would go on."""
    now = _judged(given)
    before = _judged(stored) if JUDGED in stored else Judged(output=now.names[0])
    return {
        "score": (stored.get("score"), given.get("score")),
        "judged output": (before.output, now.output),
        "dimension of its classes": (before.classes_dimension, now.classes_dimension),
    }


def _judged(workload: Mapping[str, Any]) -> Judged:
    try:
        return Judged.of(workload) or Judged()
    except TraceError:  # a damaged one is not that of any search
        return Judged()
