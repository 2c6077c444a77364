"""How far accuracy on a few images may be from that on all: 95 % confidence intervals.

One answer an image: Wilson's interval of a proportion (J. Am. Stat. Assoc. 22, 1927, as SciPy has
it), and of the change between two answers on the same images Newcombe's (Statistics in Medicine 17,
1998, method 10): of each proportion's Wilson interval, and of the images that only one is right on.

Many answers an image, as of pixels: these are not independent, so images are what is counted. Each
image is left out in turn (the jackknife), and Student's t makes an interval of how much that
changes the score, mean IoU included. One image tells nothing: its interval is everything.

All take images for independent draws. Frames of one video are more alike than that, and the
interval on them is too narrow.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from workloads.traces.scores import confusion, is_counted, score_of

CONFIDENCE = 0.95

Interval = tuple[float, float]
Classes = npt.NDArray[np.integer]
Counts = npt.NDArray[np.int64]


def intervals(
    score: str,
    found: Classes,
    dense: Classes,
    labels: Classes | None,
    classes: int = 0,
) -> dict[str, Interval]:
    """The intervals of what reuse and the dense model answer.

    Args:
        score: a key of `workloads.traces.scores.SCORES`.
        found: `(images,)` or `(images, ...)` classes under reuse.
        dense: the same of the dense model.
        labels: the same, as labelled; `None` without labels.
        classes: how many the model knows, 0 if nobody knows.

    Returns:
        `agreement`, a fraction of answers, and with labels `accuracy`, `dense_accuracy`, and
        `change`, the former less the latter; what is undefined, as no label counts, is left out.
    """
    if found.ndim == 1:
        same = found == dense
        told = {"agreement": wilson(int(same.sum()), len(same))}
        if labels is not None:
            right, dense_right = found == labels, dense == labels
            told |= {
                "accuracy": wilson(int(right.sum()), len(right)),
                "dense_accuracy": wilson(int(dense_right.sum()), len(right)),
                "change": paired_change(
                    both=int((right & dense_right).sum()),
                    only_first=int((right & ~dense_right).sum()),
                    only_second=int((~right & dense_right).sum()),
                    neither=int((~right & ~dense_right).sum()),
                ),
            }
        return told
    everything = np.ones(found.shape, dtype=bool)
    told = {"agreement": _over_images(_hits(found == dense, everything), _share)}
    if labels is None:
        return told
    if score == "accuracy":  # without tables, which are huge where classes are words
        counted, of = is_counted(labels, classes), _share
        parts = [_hits(each == labels, counted) for each in (found, dense)]
    else:
        of = partial(score_of, score)
        most = max(len(confusion(answers, labels)) for answers in (found, dense))
        parts = [_confusions(each, labels, most) for each in (found, dense)]
    both = np.stack(parts, axis=1)
    told |= {
        "accuracy": _over_images(both, lambda sums: of(sums[0])),
        "dense_accuracy": _over_images(both, lambda sums: of(sums[1])),
        "change": _over_images(both, lambda sums: of(sums[0]) - of(sums[1]), lowest=-1.0),
    }
    return {name: pair for name, pair in told.items() if not math.isnan(pair[0])}


def wilson(hits: int, of: int) -> Interval:
    """Wilson's interval of a proportion.

    Args:
        hits: how many were right.
        of: how many there are, at least 1.
    """
    from scipy.stats import binomtest  # here, as it takes most of a second

    found = binomtest(hits, of).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def paired_change(*, both: int, only_first: int, only_second: int, neither: int) -> Interval:
    """Newcombe's interval of the first proportion less the second, on the same images.

    Args:
        both: images that both are right on; at least one of the four is not 0.
        only_first: that the first is right on alone.
        only_second: that the second is right on alone.
        neither: that neither is right on.
    """
    images = both + only_first + only_second + neither
    first, second = (both + only_first) / images, (both + only_second) / images
    (low_1, high_1), (low_2, high_2) = (
        wilson(both + only_first, images),
        wilson(both + only_second, images),
    )
    margins = math.prod(
        (both + only_first, only_second + neither, both + only_second, only_first + neither)
    )
    correlation = 0.0
    if margins:
        excess: float = both * neither - only_first * only_second
        if excess > 0:  # corrected for continuity
            excess = max(excess - images / 2, 0)
        correlation = excess / math.sqrt(margins)

    def reach(down: float, up: float) -> float:
        return math.sqrt(max(down**2 - 2 * correlation * down * up + up**2, 0.0))

    change = first - second
    return (
        max(change - reach(first - low_1, high_2 - second), -1.0),
        min(change + reach(high_1 - first, second - low_2), 1.0),
    )


def _hits(right: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_]) -> Counts:
    """`(images, 2)` answers that are right, and that are counted."""
    places = tuple(range(1, right.ndim))
    return np.stack([(right & counted).sum(axis=places), counted.sum(axis=places)], axis=1)


def _share(hits: Counts) -> float:
    return float(hits[0] / hits[1]) if hits[1] else math.nan


def _confusions(answers: Classes, labels: Classes, classes: int) -> Counts:
    """`(images, classes, classes)` counts."""
    ones = [slice(image, image + 1) for image in range(len(labels))]
    return np.stack([confusion(answers[one], labels[one], classes=classes) for one in ones])


def _over_images(
    counts: Counts, score: Callable[[Counts], float], *, lowest: float = 0.0
) -> Interval:
    """Student's interval of a score, by leaving out each image in turn.

    Args:
        counts: `(images, ...)`, which are summed over images.
        score: of the sum.
        lowest: that the score may be; the highest is 1.
    """
    from scipy.stats import t as student

    images, total = len(counts), counts.sum(axis=0)
    if images < 2:
        return lowest, 1.0
    without = np.array([score(total - each) for each in counts])
    deviation = math.sqrt((images - 1) / images * np.square(without - without.mean()).sum())
    reach = float(student.ppf(0.5 + CONFIDENCE / 2, images - 1)) * deviation
    whole = score(total)
    if math.isnan(whole + reach):
        return math.nan, math.nan
    return max(whole - reach, lowest), min(whole + reach, 1.0)
