"""What keeps a search from an answer, in words: for the terminal, the page and Python alike."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from accelerators import ConfigError, area_by_part
from codesign.space.constraints import Constraints
from codesign.space.design_space import DesignSpace
from codesign.study.trial import Trial
from workloads.errors import plain

# Trials that must have failed alike, and none otherwise, before a search gives up.
ALIKE_FAILURES = 4
_LONGEST_REASON = 300
# Limit -> how it is told, how the nearest design is, and what a unit of it is in theirs.
_LIMITS: Mapping[str, tuple[str, str, float]] = {
    "area_mm2": ("{} mm2", "the smallest has {} mm2", 1),
    "power_mw": ("{} mW", "the most frugal takes {} mW", 1),
    "latency_ms_per_image": ("{} ms per image", "the fastest takes {} ms per image", 1),
    "accuracy_loss": (
        "a loss of {} points of accuracy", "the most accurate loses {} points", 100,
    ),
}  # fmt: skip
# Part -> the parameters that its area follows from, see `DesignSpace.build`; those of all designs,
# and those of designs with reuse. Parts that follow from more are left out.
_DENSE_PARTS = {
    "array": ("array.rows", "array.columns", "array.fold_timing"),
    "weight_buffer": ("weight_buffer.kib", "array.columns"),
}
_REUSE_PARTS = {
    "output_buffer": ("output_buffer.kib", "array.columns", "reconstructor.sums_per_cycle"),
    "centroid_buffer": ("centroid_buffer.kib", "reconstructor.sums_per_cycle"),
    "reconstructor": ("reconstructor.sums_per_cycle",),
}


def last_line(reason: str | None) -> str:
    """What went wrong, of a traceback or a message."""
    lines = (reason or "").strip().splitlines()
    return plain(lines[-1].strip(), _LONGEST_REASON) if lines else "no reason"


def are_alike(reasons: Sequence[str | None]) -> bool:
    """Whether at least `ALIKE_FAILURES` trials failed, all in the same way but for numbers."""
    return len(reasons) >= ALIKE_FAILURES and len({_kind(reason) for reason in reasons}) == 1


def _kind(reason: str | None) -> str:
    """Numbers and addresses may be others each time."""
    return re.sub(r"0x[0-9a-f]+|\d+", "", last_line(reason))


def failures(reasons: Sequence[str | None], tried: int, of: str = "trials") -> str | None:
    """How many trials failed and of what, in a clause; `None` where none did.

    Args:
        reasons: of those that failed.
        tried: how many there are in all.
        of: how to call them.
    """
    if not reasons:
        return None
    kind, count = Counter(map(_kind, reasons)).most_common(1)[0]
    told = next(last_line(reason) for reason in reasons if _kind(reason) == kind)
    share = "" if count == len(reasons) else f" ({count} of them for this reason)"
    return f"{len(reasons)} of {tried} {of} failed{share}: {told}"


def unanswered(trials: Sequence[Trial], limits: Mapping[str, float], failed: str | None) -> str:
    """Why no trial is on the front, in a clause.

    Args:
        trials: of a search, none of them on the front.
        limits: that were stated.
        failed: how many trials failed, in a clause, see `failures`.
    """
    told = [trial for trial in trials if trial.state != "running"]
    if not told:
        return "no design was evaluated to its end yet"
    if any(trial.state == "complete" for trial in told):
        return "no design was judged on all images yet"
    clauses = [failed, _broken_rules(told), *_limits(limits, told)]
    return "; ".join(clause for clause in clauses if clause is not None)


def _broken_rules(told: Sequence[Trial]) -> str | None:
    """Designs that no hardware can be."""
    broken = [trial for trial in told if trial.state == "infeasible" and not trial.summary]
    if not broken:
        return None
    first, _ = Counter((t.reason or "").partition("\n")[0] for t in broken).most_common(1)[0]
    return (
        f"{len(broken)} of {len(told)} designs tried break a rule of the hardware: "
        f"{plain(first, _LONGEST_REASON)}"
    )


def _limits(limits: Mapping[str, float], told: Sequence[Trial]) -> list[str]:
    """Designs beyond a limit, and how far the nearest is from each limit that none keeps."""
    measured = [trial for trial in told if trial.excess]
    clauses, kept = [], []
    for name, limit in limits.items():
        over = [trial.excess[name] for trial in measured if name in trial.excess]
        beyond = sum(each > 0 for each in over)
        if not beyond:
            continue
        words, nearest, unit = _LIMITS[name]
        clause = (
            f"{beyond} of {len(told)} designs tried are beyond {words.format(f'{unit * limit:g}')}"
        )
        if beyond == len(over):
            clauses.append(f"{clause}; {nearest.format(f'{unit * (limit + min(over)):.6g}')}")
        else:
            kept.append(clause)
    if kept and not clauses:
        kept.append("none keeps all limits at once")
    return clauses or kept


def least_area_mm2(space: DesignSpace) -> float:
    """An area that no design of a space is below: the smallest of parts that can be told apart."""
    if space.own_fields:
        return 0.0
    may_be_dense = not any(
        parameter.name.endswith((".reuse", ".position")) and all(parameter.choices)
        for parameter in space.parameters
    )
    parts = _DENSE_PARTS if may_be_dense else _DENSE_PARTS | _REUSE_PARTS
    return sum(_least_area_of(space, part, names) for part, names in parts.items())


def _least_area_of(space: DesignSpace, part: str, names: Sequence[str]) -> float:
    """The smallest that a part can be; 0 where that cannot be told."""
    choices = {parameter.name: parameter.choices for parameter in space.parameters}
    areas = []
    try:
        for values in itertools.product(*(choices[name] for name in names)):
            start = next(iter(space.start.values()))
            design, _ = space.build({**start, **dict(zip(names, values, strict=True))})
            areas.append(area_by_part(design)[part])
    except (ConfigError, KeyError):  # other parts of the start may be what does not fit
        return 0.0
    return min(areas)


def limit_problems(limits: Constraints, space: DesignSpace) -> list[str]:
    """Limits that no design of a space can keep, found without trying one."""
    if limits.area_mm2 is None:
        return []
    least = least_area_mm2(space)
    if limits.area_mm2 >= least:
        return []
    return [
        f"Constraints.area_mm2 must be at least {least:.6g}, got {limits.area_mm2:g}: all designs "
        f"of the space are beyond {limits.area_mm2:g} mm2; the smallest has at least "
        f"{least:.6g} mm2; raise the limit (--max-area-mm2), or narrow or change the space"
    ]
