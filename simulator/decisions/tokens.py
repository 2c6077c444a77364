"""A token plan: which tokens live on from block to block, and for whom they stand."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from accelerators.rules import refuse

# In place of a token's number: the token is gone.
DROPPED = -1


@dataclass(frozen=True, kw_only=True)
class TokenPlan:
    """For whom each token stands, from given layers on.

    Attributes:
        stands_for: layer name -> `(images, tokens)` int64, from this layer (in the order of calls)
            until the next named one: a token's own number where it lives on, the number of the one
            that it was merged into, or `DROPPED`. Before the first named layer all tokens live.

    Raises:
        ConfigError: a token stands for one that does not live, an image is left without one, or
            a token comes back.
    """

    stands_for: Mapping[str, np.ndarray] = field(repr=False)

    def __post_init__(self) -> None:
        """Who is stood for must live, and who is gone stays away."""
        broken: list[str] = []
        before: np.ndarray | None = None
        for name, numbers in self.stands_for.items():
            where = f"TokenPlan.stands_for[{name!r}]"
            if numbers.ndim != 2 or 0 in numbers.shape or not _stand_for_living(numbers):
                broken.append(
                    f"{where} must be (images, tokens), each token's own number, DROPPED or that "
                    f"of a token that lives, got shape {numbers.shape}; name tokens that live on, "
                    "at least one of each image"
                )
                continue
            living = numbers == np.arange(numbers.shape[1])
            if before is not None and (before.shape != living.shape or (living & ~before).any()):
                broken.append(
                    f"{where} must not bring back what an earlier layer dropped; leave it out"
                )
            before = living
        refuse(broken)

    def living(self, layer: str) -> np.ndarray:
        """`(images,)` int64, tokens that live on from a named layer."""
        numbers = self.stands_for[layer]
        return np.count_nonzero(numbers == np.arange(numbers.shape[1]), axis=1)


def _stand_for_living(numbers: np.ndarray) -> bool:
    """Whether every token lives, is gone, or stands for one that lives, in images that have one."""
    tokens = numbers.shape[1]
    known = (numbers >= 0) & (numbers < tokens)
    ends = np.take_along_axis(numbers, np.where(known, numbers, 0), axis=1)
    right = np.where(known, ends == numbers, numbers == DROPPED)
    return bool(right.all() and (numbers == np.arange(tokens)).any(axis=1).all())
