"""Tokens that are dropped from a layer on, whatever the input."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse, text, true_of, violations
from simulator.decisions.tokens import DROPPED, TokenPlan
from simulator.policies.policy import LayerState, ReusePolicy
from workloads.traces.layer import LONGEST_NAME, Layer
from workloads.traces.trace import WorkloadTrace


def _are_numbers(value: object) -> bool:
    """Whether these are numbers of tokens."""
    return isinstance(value, tuple | list) and all(type(x) is int and x >= 0 for x in value)


@dataclass(frozen=True, kw_only=True)
class DroppedTokens(ReusePolicy):
    """The same tokens of every image are gone from one layer on.

    The plainest token plan, of which DynamicViT (Rao et al., NeurIPS 2021) and its like are forms
    that score tokens by the input. A classifier that reads one token needs that one to live.

    Attributes:
        first_layer: name of the layer, in the order of calls, from which they are gone: a block's
            query, key and value, whichever is called first.
        dropped: numbers of the tokens, from 0 in the order in which attention has them.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide()`, where there is no
            such layer or token, or no token is left.
    """

    first_layer: str = field(metadata=text(LONGEST_NAME, "blocks.3.attn.query"))
    dropped: Sequence[int] = field(
        metadata=true_of(_are_numbers, "be numbers of tokens", "try (1, 2)")
    )

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "DroppedTokens"))
        object.__setattr__(self, "dropped", tuple(self.dropped))

    def applies_to(self, layer: Layer) -> bool:
        """To none: only tokens are decided on."""
        return False

    def tokens(self, trace: WorkloadTrace) -> TokenPlan | None:
        """The plan of these tokens; `None` where none is dropped.

        Raises:
            ConfigError: no attention follows the layer, or it has fewer tokens.
        """
        if not self.dropped:
            return None
        names = [layer.name for layer in trace.layers]
        first = names.index(self.first_layer) if self.first_layer in names else len(names)
        sizes = {layer.gemm.m for layer in trace.layers[first:] if layer.kind == "attention_scores"}
        if len(sizes) != 1 or max(self.dropped) >= min(sizes):
            raise ConfigError(
                f"DroppedTokens.first_layer={self.first_layer!r} must be a layer with attention of "
                f"more than {max(self.dropped)} tokens after it, got attention of "
                f"{sorted(sizes) or 'none'}; layers are {', '.join(names)}"
            )
        numbers = np.arange(sizes.pop())
        numbers[list(self.dropped)] = DROPPED
        return TokenPlan(stands_for={self.first_layer: np.tile(numbers, (trace.images, 1))})

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> None:
        """No decisions on what the living tokens go through."""

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "dropped_tokens", **asdict(self), "dropped": list(self.dropped)}
