"""What each group of layers shares, by how much error of the answers is borne in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accelerators import ConfigError
from workloads.errors import show

# How much is borne: the answers' mean squared error over the mean square of the dense ones.
OUTPUT_ERROR = "output_error"


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """Of each dial, as `GROUP.lsh.hashes`, what it is set to where so much error is borne.

    Attributes:
        errors: relative mean squared errors of the answers, ascending, if those of groups add up.
        choices: dial -> what it was chosen from.
        settings: dial -> its value at each error.
    """

    errors: tuple[float, ...]
    choices: Mapping[str, tuple[Any, ...]]
    settings: Mapping[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        same = {*self.choices} == {*self.settings}
        lengths = {len(values) for values in self.settings.values()} == {len(self.errors)}
        if not (self.errors and same and lengths):
            raise ConfigError(
                "Allotment.settings must have a value of each dial for each error, got "
                f"{show(self.settings)}; use codesign.evaluation.allotting.measured"
            )

    def at(self, error: float) -> dict[str, Any]:
        """Dial -> its value where so much error is borne, one of `errors`."""
        place = self.errors.index(error)
        return {name: values[place] for name, values in self.settings.items()}

    def to_dict(self) -> dict[str, Any]:
        """As plain values, to be stored with a study."""
        return {
            "errors": list(self.errors),
            "choices": {name: list(values) for name, values in self.choices.items()},
            "settings": {name: list(values) for name, values in self.settings.items()},
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Allotment:
        """What `to_dict` described."""
        choices, settings = (
            {name: tuple(values) for name, values in given[part].items()}
            for part in ("choices", "settings")
        )
        return cls(errors=tuple(given["errors"]), choices=choices, settings=settings)
