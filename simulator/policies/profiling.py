"""Thresholds of each filter under a limit of what may be lost, found by greedy steps."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Of what a filter loses, the levels that a threshold is tried at; the first loses nothing.
_LEVELS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One threshold of one filter, on the rows that it was profiled on.

    Attributes:
        size: products that the prediction takes.
        threshold: sums of these below it are given up.
        saved: products that are then not computed.
        lost: squared outputs that are then 0.
    """

    size: int
    threshold: float
    saved: float
    lost: float


def thresholds_of(
    partial: np.ndarray, lost: np.ndarray, saved: np.ndarray, size: int
) -> list[Choice]:
    """A few thresholds of one filter, each as high as what it may lose allows.

    Args:
        partial: `(rows,)` sums that are predicted from.
        lost: `(rows,)` squared outputs after the ReLU.
        saved: `(rows,)` products that giving a row up saves.
        size: products that a partial sum takes.
    """
    order = np.argsort(partial, kind="stable")
    losses = np.cumsum(lost[order], dtype=np.float64)
    savings = np.cumsum(saved[order], dtype=np.float64)
    total = losses[-1]
    found = []
    for level in _LEVELS:
        number = int(np.searchsorted(losses, level * total, "right"))
        number = min(number, len(order) - 1)
        # Halfway to the next sum, for sums of other rows lie between.
        ends = partial[order[max(number - 1, 0)]], partial[order[number]]
        threshold = float(np.float32((ends[0] + ends[1]) / 2))
        below = int(np.searchsorted(partial[order], threshold, "left"))
        if below:
            found.append(
                Choice(
                    size=size,
                    threshold=threshold,
                    saved=float(savings[below - 1]),
                    lost=float(losses[below - 1]),
                )
            )
    return found


def chosen(choices: Sequence[Sequence[Choice]], budget: float) -> list[Choice | None]:
    """One choice of each filter, so that all together save much and lose at most `budget`.

    From each filter's choice to a bolder one is a step; the step that saves most for what it loses
    is taken first, as long as the budget lasts.

    Args:
        choices: of every filter.
        budget: what may be lost of all.

    Returns:
        The choice of each filter, `None` where it has none.
    """
    fronts = [_front(each) for each in choices]
    found: list[Choice | None] = [None] * len(fronts)
    heap: list[tuple[float, int, int]] = []
    for number in range(len(fronts)):
        _push(heap, fronts, found, number, 0)
    left = budget
    while heap:
        _, number, place = heapq.heappop(heap)
        now, after = found[number], fronts[number][place]
        more = after.lost - (0.0 if now is None else now.lost)
        if more > left:
            continue
        left -= more
        found[number] = after
        _push(heap, fronts, found, number, place + 1)
    return found


def _push(
    heap: list[tuple[float, int, int]],
    fronts: list[list[Choice]],
    found: list[Choice | None],
    number: int,
    place: int,
) -> None:
    if place >= len(fronts[number]):
        return
    now, after = found[number], fronts[number][place]
    saved = after.saved - (0.0 if now is None else now.saved)
    lost = after.lost - (0.0 if now is None else now.lost)
    heapq.heappush(heap, (-saved / max(lost, 1e-30), number, place))


def _front(choices: Sequence[Choice]) -> list[Choice]:
    """Choices of which none saves less and loses more, each step worth less than the one before."""
    best: list[Choice] = []
    for each in sorted(choices, key=lambda one: (one.lost, -one.saved)):
        if each.saved <= (best[-1].saved if best else 0.0):
            continue
        while best and _worth(best[-2] if len(best) > 1 else None, best[-1]) <= _worth(
            best[-1], each
        ):
            best.pop()
        best.append(each)
    return best


def _worth(before: Choice | None, after: Choice) -> float:
    saved = after.saved - (0.0 if before is None else before.saved)
    lost = after.lost - (0.0 if before is None else before.lost)
    return saved / max(lost, 1e-30)
