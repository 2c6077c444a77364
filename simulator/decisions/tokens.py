"""A token plan: which tokens live on from block to block, and for whom they stand."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

# In place of a token's number: the token is gone.
DROPPED = -1


@dataclass(frozen=True, kw_only=True)
class TokenPlan:
    """For whom each token stands, from given layers on.

    Attributes:
        stands_for: layer name -> `(images, tokens)` int64, from this layer (in the order of calls)
            until the next named one: a token's own number where it lives on, the number of the one
            that it was merged into, or `DROPPED`. Before the first named layer all tokens live.
    """

    stands_for: Mapping[str, np.ndarray] = field(repr=False)

    def living(self, layer: str) -> np.ndarray:
        """`(images,)` int64, tokens that live on from a named layer."""
        numbers = self.stands_for[layer]
        return np.count_nonzero(numbers == np.arange(numbers.shape[1]), axis=1)
