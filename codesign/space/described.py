"""Design spaces read back from what studies keep of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codesign.space.design_space import DesignSpace
from codesign.space.technique_space import TechniqueSpace


def described_space(description: Mapping[str, Any]) -> DesignSpace:
    """The space that its `to_dict` described.

    Raises:
        ConfigError: it lacks a part, or a part breaks a rule.
    """
    kind = TechniqueSpace if "techniques" in description else DesignSpace
    return kind.from_dict(description)
