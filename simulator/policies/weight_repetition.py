"""Weight repetition: activations of equal weights are summed before they are multiplied (UCNN)."""

from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators.rules import integer, integer_of, optional, refuse, violations
from simulator.policies.technique import Technique, register
from simulator.policies.weight_plans import WeightPlanned, index_bits


@dataclass(frozen=True, kw_only=True)
class WeightRepetition(WeightPlanned):
    """Groups a row's activations by their weight, sums each group and multiplies it once.

    Hegde et al., "UCNN", ISCA 2018. With several filters a group is of all activations with the
    same *tuple* of weights: sorted by the first filter's weight, then the second's, and so on, the
    innermost sums serve all filters; the sum of a filter's group is made of those within it. A
    multiplication is made for each group of each level whose weight is not 0; activations whose
    weights are all 0 are in no group. Exact: in integers bit for bit.

    Attributes:
        filters: columns that share groups, 1, 2 or 4.
        largest_sum: activations of a group at most, 1 to 65536; larger ones are cut, and each part
            is multiplied. `None` for no limit.

    Raises:
        ConfigError: at construction, with every violated rule; at `calibrate`, where a layer's
            weights do not repeat.
    """

    filters: int = field(default=1, metadata=integer_of(1, 2, 4))
    largest_sum: int | None = field(default=None, metadata=optional(integer(1, 65536)))

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "WeightRepetition"))

    @property
    def block_columns(self) -> int:
        """The filters."""
        return self.filters

    def counts(self, block: np.ndarray) -> dict[str, int]:
        """Of groups that lie within groups."""
        k, filters = block.shape
        rows = block[(block != 0).any(axis=1)]
        rows = rows[np.lexsort(rows.T[::-1])]
        entries = len(rows)
        levels = list(_starts(rows, self.largest_sum))
        heads = [rows[starts, level] != 0 for level, starts in enumerate(levels)]
        multiplies = [int(np.count_nonzero(each)) for each in heads]
        sum_adds = entries - int(np.count_nonzero(levels[-1])) if entries else 0
        outer_adds = 0
        for level in range(filters - 1):
            # Groups of weights that are 0 in all filters so far need no sum.
            needed = (rows[:, : level + 1] != 0).any(axis=1)
            groups, within = (np.count_nonzero(each & needed) for each in levels[level : level + 2])
            outer_adds += int(within - groups)
        return {
            "multiplies": sum(multiplies),
            "sum_adds": sum_adds + outer_adds,
            "result_adds": sum(max(0, each - 1) for each in multiplies),
            "inputs": entries,
            "sum_reads": 0,
            "kept_sums": 0,
            "steps": entries + outer_adds,
            "entries": entries,
            # An activation, and which levels' groups end with it.
            "entry_bits": index_bits(k) + filters.bit_length(),
            "listed": sum(int(np.count_nonzero(starts)) for starts in levels),
        }

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "weight_repetition", **asdict(self)}


def _starts(rows: np.ndarray, largest: int | None):
    """Where groups start, `(entries,)` bool, level by level from the outermost.

    A group of a level lies within one of the level before; one that is multiplied is cut where it
    is too large.
    """
    entries, filters = rows.shape
    starts = np.zeros(entries, bool)
    starts[:1] = True
    for level in range(filters):
        starts = starts.copy()
        starts[1:] |= np.diff(rows[:, level]) != 0
        if largest is not None and entries:
            places = np.arange(entries)
            within = places - np.maximum.accumulate(np.where(starts, places, 0))
            starts |= (within % largest == 0) & (rows[:, level] != 0)
        yield starts


register(
    Technique(
        name="ucnn",
        title="UCNN, weight repetition",
        axis="weights",
        word="factorise",
        grain="row of a block of columns",
        rule="Activations whose weights are equal are summed before one multiplication; with "
        "several filters, those whose tuples of weights are equal. Static and exact.",
        evidence="none: the weights alone",
        source="Hegde et al., UCNN, ISCA 2018",
        policy=WeightRepetition,
        units=("weight_tables",),
        trained="nothing; weights of few values help, by quantisation or clustering",
        published=("UCNN",),
        choices={"filters": (1, 2, 4)},
        start={"filters": 2},
        own=("filters",),
    )
)
