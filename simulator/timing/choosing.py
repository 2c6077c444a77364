"""Which of several ways to cut a layer is taken, once an engine timed them."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

# Of two ways no more than this apart in cycles, the one with the fewer DRAM bytes is taken.
AS_FAST = 1.01
# A cut of shared rows may be so much slower than the fastest, if it moves that many fewer bytes.
WORTH_WAITING = 1.25


class Timed(Protocol):
    """A way to cut a layer, in the time that an engine found."""

    @property
    def cycles(self) -> int:
        """From the first load to the last store."""

    @property
    def dram_bytes(self) -> int:
        """Bytes that travel to and from the DRAM."""


Way = TypeVar("Way", bound=Timed)


def least_traffic(runs: Sequence[Way]) -> Way:
    """Of those no more than 1 % slower than the fastest, the one that moves the fewest DRAM bytes;
    the faster of two that move as many."""
    enough = AS_FAST * min(run.cycles for run in runs)
    return min(
        (run for run in runs if run.cycles <= enough), key=lambda run: (run.dram_bytes, run.cycles)
    )


def least_traffic_times_cycles(runs: Sequence[Way]) -> Way:
    """Of those no more than a quarter slower than the fastest, the one with the least product of
    cycles and DRAM bytes: a little time may save most of the energy."""
    enough = WORTH_WAITING * min(run.cycles for run in runs)
    return min(
        (run for run in runs if run.cycles <= enough),
        key=lambda run: (run.cycles * run.dram_bytes, run.cycles),
    )
