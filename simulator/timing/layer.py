"""What timing says of one layer on one design, and of what is done above the layers."""

from collections import Counter
from dataclasses import dataclass

from simulator.timing.schedule import Schedule, most_blamed

# (part, action) -> how often; priced by `accelerators.energy_per_action`.
ActionCounts = Counter[tuple[str, str]]
# Kinds of DRAM bytes that are always told.
TRAFFIC = ("inputs", "weights", "outputs", "spilled_sums", "spilled_results")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Cycles and actions of a layer, or of a unit that works above the layers.

    Attributes:
        cycles: from the first load to the last store.
        busy_cycles: block -> cycles in which it works; the blocks overlap, so these do not add up.
        critical_cycles: limit -> cycles of the critical path that it is to blame for; these add up
            to `cycles`. Limits are the blocks and the buffers, whose ports or sizes hold
            the blocks up; all but `array` are stalls of the array.
        dram_bytes: bytes to and from the DRAM by what they are: `inputs`, `weights` (both with what
            is loaded again), `outputs`, `spilled_sums` and `spilled_results` (out and back; in a
            stream also its tables, the old results that are used and the new ones); where there
            are any, `addresses` and `kept_results`, and what a stage of a user's own moves.
        actions: what was done, to be priced.
        kept_bytes: memory that holds what is kept from frame to frame, wherever it lies, as the
            design stores it: references, results, levels, moved maps, tables. 0 of what keeps
            nothing.
    """

    cycles: int
    busy_cycles: dict[str, int]
    critical_cycles: dict[str, int]
    dram_bytes: dict[str, int]
    actions: ActionCounts
    kept_bytes: int = 0

    @property
    def bound_by(self) -> str:
        """The limit to blame for most of the cycles."""
        return most_blamed(self.critical_cycles)


@dataclass(frozen=True, kw_only=True)
class LayerTiming(Timing):
    """Cycles and actions of one layer.

    Attributes:
        macs: multiply-accumulates that the array did.
        schedule: the tiles, for a timeline.
    """

    macs: int
    schedule: Schedule
