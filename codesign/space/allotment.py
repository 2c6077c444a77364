"""What each group of layers shares, by how much error of the answers is borne in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerators import ConfigError
from codesign.space.parameters import Parameter
from workloads.errors import show

# How much is borne: the answers' mean squared error over the mean square of the dense ones.
OUTPUT_ERROR = "output_error"
# Where a search starts: on street video it cost no point of mean IoU.
START_ERROR = 0.04


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """Of each dial, as `GROUP.lsh.hashes`, what it is set to where so much error is borne.

    Attributes:
        errors: relative mean squared errors of the answers, ascending, if those of groups add up.
        choices: dial -> what it was chosen from.
        settings: dial -> its value at each error.
        asked: errors that were to be chosen from, of which `errors` are those that some setting
            keeps to, each with another one; `None` for the usual ones.
    """

    errors: tuple[float, ...]
    choices: Mapping[str, tuple[Any, ...]]
    settings: Mapping[str, tuple[Any, ...]]
    asked: tuple[float, ...] | None = None

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
            "asked": None if self.asked is None else list(self.asked),
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Allotment:
        """What `to_dict` described."""
        choices, settings = (
            {name: tuple(values) for name, values in given[part].items()}
            for part in ("choices", "settings")
        )
        asked = given.get("asked")
        return cls(
            errors=tuple(given["errors"]),
            choices=choices,
            settings=settings,
            asked=None if asked is None else tuple(asked),
        )


def asked_errors(parameters: Sequence[Parameter]) -> tuple[float, ...] | None:
    """The errors that parameters choose from; `None` where none of them does."""
    return next((each.choices for each in parameters if each.name == OUTPUT_ERROR), None)


def allotment_problems(
    parameters: Sequence[Parameter], dials: Sequence[str], allotment: Allotment | None
) -> list[str]:
    """Errors that no answers have or that nothing was allotted for, and dials of another space.

    Args:
        parameters: of a space.
        dials: their names.
        allotment: of the space, if there is one.
    """
    path = f"space.parameters.{OUTPUT_ERROR!r}"
    for each in parameters:
        if each.name == OUTPUT_ERROR and not (each.ordered and each.choices[0] > 0):
            return [
                f"{path} must be numbers above 0 from small to large, got {show(each.choices)}; "
                "sort them"
            ]
    if allotment is None:
        return []
    if {*allotment.settings} != {*dials}:
        return [
            "TechniqueSpace.allotment must be of the dials of its groups, "
            f"{', '.join(dials)}, got {', '.join(allotment.settings)}; use "
            "codesign.evaluation.allotting.with_dials_allotted"
        ]
    chosen = asked_errors(parameters) or ()
    if {*chosen} <= {*allotment.errors}:
        return []
    return [
        f"{path} must be some of {', '.join(map(str, allotment.errors))}, for which dials were "
        f"allotted, got {show(chosen)}; leave out the others, or narrow the space before what "
        "groups bear is measured"
    ]
