"""When a difference is a difference: one rule for every verdict, table and colour.

Time and energy. A ratio within `RESOLUTION_PERCENT` of 1, as it is printed, is no difference. The
dense design of equal area is not known more closely: it is the fastest that was found, and of those
within 1 % of it the one with the least DRAM traffic (`simulator.timing.dense_baseline`), in whole
rows and columns and buffers of powers of two; and costs per action have two or three digits. What a
ratio owes to the cost table itself, `--technology` shows.

Accuracy. Reuse costs too much of it if the whole 95 % interval of the loss
(`simulator.results.intervals`) lies beyond `ACCURACY_DROP`, and keeps it if the whole interval lies
within. In between the images are too few to tell. Where there is no interval, the loss on these
images decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from workloads.traces.scores import SCORES

# A ratio of times or of energies that is printed as 0.98 to 1.02 is no difference, see above.
RESOLUTION_PERCENT = 2
RESOLUTION_TEXT = f"Ratios from 0.98 to 1.02, within {RESOLUTION_PERCENT} % of 1, are no difference"
# Loss of accuracy, as a fraction of all images, beyond which a design is not said to pay.
ACCURACY_DROP = 0.02
# What reuse is judged by without labels, where there are classes to compare.
AGREEMENTS = ("agreement", "pixel_agreement", "position_agreement")
# 1 - 0.98 is a little more than 0.02 in binary; fractions of images are coarser.
_ROUNDING = 1e-9

KEPT, LOST, UNCLEAR = "kept", "lost", "unclear"

Interval = Sequence[float]


def ratio_text(ratio: float) -> str:
    """A ratio as it is printed: in hundredths about 1, else with two or three digits."""
    if abs(ratio) < 0.1:
        return f"{ratio:.2g}"
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.1f}"


def significant(value: float, digits: int) -> str:
    """A number rounded to a few significant digits, without an exponent where it can be."""
    rounded = float(f"{value:.{max(digits, 1) - 1}e}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"


def against_one(ratio: float) -> int:
    """1 where a ratio is above 1, -1 where it is below, 0 where it is not told apart from 1."""
    hundredths = round(100 * ratio) if ratio < 10 else 1000
    if abs(hundredths - 100) <= RESOLUTION_PERCENT:
        return 0
    return 1 if hundredths > 100 else -1


def tone(gain: int) -> str:
    """The style of a number: green for a gain, red for a loss, none for no difference."""
    return {1: "good", -1: "bad", 0: ""}[gain]


def pays(speedup: float, energy_ratio: float) -> str:
    """Whether reuse pays, by its speed and energy over a dense design's."""
    time, energy = against_one(speedup), -against_one(energy_ratio)
    if time >= 0 and energy >= 0:
        return {
            (1, 1): "Reuse pays",
            (1, 0): "Reuse pays in time and breaks even in energy",
            (0, 1): "Reuse pays in energy and breaks even in time",
            (0, 0): "Reuse breaks even",
        }[time, energy]
    if time > 0:
        return "Reuse pays in time but not in energy"
    if energy > 0:
        return "Reuse pays in energy but not in time"
    return "Reuse does not pay"


def kept(loss: float | None, interval: Interval | None = None) -> str:
    """Whether accuracy is kept: `KEPT`, `LOST`, or `UNCLEAR` where the images are too few to tell.

    Args:
        loss: dense less reuse, a fraction; `None` is unknown, and nothing is held against it.
        interval: lowest and highest loss at 95 %; `None` without one.
    """
    if loss is None:
        return KEPT
    low, high = (loss, loss) if interval is None else interval
    if low > ACCURACY_DROP + _ROUNDING:
        return LOST
    return KEPT if high <= ACCURACY_DROP + _ROUNDING else UNCLEAR


def opening(speedup: float, energy_ratio: float, loss: float | None, state: str) -> str:
    """How a verdict begins: what reuse costs in accuracy, else whether it pays."""
    if state == LOST:
        return "Reuse costs too much accuracy"
    if state == UNCLEAR and loss is not None and loss > ACCURACY_DROP + _ROUNDING:
        return "Reuse may cost too much accuracy"
    return pays(speedup, energy_ratio)


def loss_interval(quality: str, intervals: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Lowest and highest loss, of a report's `intervals`.

    Args:
        quality: a key of `workloads.traces.scores.SCORES` where there are labels; else by what
            reuse is compared with the dense model: agreement, or what has no interval.
        intervals: as `simulator.results.intervals.intervals` gives them; reports of before have
            none.
    """
    known = {**dict.fromkeys(SCORES, "change"), **dict.fromkeys(AGREEMENTS, "agreement")}
    found = (intervals or {}).get(known.get(quality, ""))
    if found is None:
        return None
    low, high = found
    return (-high, -low) if quality in SCORES else (1 - high, 1 - low)


def unclear_text(images: int) -> str:
    """What the images cannot tell, for a sentence."""
    return (
        f"whether more than {100 * ACCURACY_DROP:g} points are lost cannot be told on "
        f"{counted(images, 'image')}"
    )


def change_text(change: float, interval: Interval | None) -> str:
    """A change of accuracy in percentage points, with its interval."""
    told = f"{points(change)} points"
    if interval is None:
        return told
    low, high = interval
    return f"{told}, 95 % interval {points(low)} to {points(high)}"


def level_text(interval: Interval | None) -> str:
    """The interval of an accuracy in percent, in brackets; empty without one."""
    if interval is None:
        return ""
    low, high = interval
    return f" (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def level_note(interval: Interval, images: int) -> str:
    """The same for a note below a number, with what it takes for granted."""
    low, high = interval
    return (
        f"95 % interval {100 * low:.1f} to {100 * high:.1f} %, if the {counted(images, 'image')} "
        "were drawn independently"
    )


def points(change: float) -> str:
    """A change of a fraction in percentage points; never a minus sign before zero."""
    return f"{100 * change + 0.0:+.1f}" if round(1000 * change) else "+0.0"


def counted(count: int, name: str) -> str:
    """`1 image`, `8 images`."""
    return f"{count:,} {name}{'' if count == 1 else 's'}"
