"""The policy that a search varies: a template of which fields are replaced, and its stored form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from accelerators import ConfigError
from accelerators.rules import show
from simulator import ReusePolicy
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True)
class StoredPolicy(ReusePolicy):
    """A user's policy as a study keeps it: it tells what it was, and decides nothing.

    No code that a study names is executed. A search goes on with the policy itself, given again.

    Attributes:
        source: module and name of its class.
        values: its fields.
    """

    source: str
    values: Mapping[str, Any]

    def decide(self, layer: Layer, rows: np.ndarray, state: Any) -> None:
        """Refused.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"policy must be one that decides, got {self.source} as a study keeps it; give the "
            "policy itself"
        )

    def describe(self) -> dict[str, Any]:
        """The policy as plain values."""
        return {"policy": self.source, **self.values}

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.values.items())
        return f"{self.source.rpartition(':')[2]}({given})"


def field_values(policy: ReusePolicy) -> dict[str, Any]:
    """Field -> value of a policy that is a dataclass; others have none that can be searched."""
    if isinstance(policy, StoredPolicy):
        return dict(policy.values)
    if not is_dataclass(policy):
        return {}
    return {each.name: getattr(policy, each.name) for each in fields(policy) if each.init}


def changed(policy: ReusePolicy, values: Mapping[str, Any]) -> ReusePolicy:
    """The policy with other values of some fields.

    Raises:
        ConfigError: the policy refuses them.
    """
    if not values:
        return policy
    if isinstance(policy, StoredPolicy):
        return replace(policy, values={**policy.values, **values})
    return replace(policy, **values)  # type: ignore[type-var]


def stored(policy: ReusePolicy) -> dict[str, Any]:
    """The policy as a study keeps it."""
    if isinstance(policy, StoredPolicy):
        return {"source": policy.source, "values": dict(policy.values)}
    kind = type(policy)
    values = {
        name: value
        if value is None or isinstance(value, bool | int | float | str)
        else show(value, type(value))
        for name, value in field_values(policy).items()
    }
    return {"source": f"{kind.__module__}:{kind.__qualname__}", "values": values}
