"""What each technique is: its place on the box, its unit, its source, its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import MappingProxyType
from typing import Any

from accelerators import ConfigError
from accelerators.rules import choose, show
from simulator.policies.policy import ReusePolicy

AXES = ("rows", "columns", "depth", "weights", "frames", "tokens", "model")
"""What a technique takes work off: of a product its rows, columns, depth or weights; above it
frames or tokens; or another model is run."""

WORDS = ("share", "skip", "keep", "factorise", "rewrite")
"""What it does with it: equal to what is computed for others, not computed, kept from before,
computed in another order, exactly; or the model is written anew."""


@dataclass(frozen=True, kw_only=True)
class Technique:
    """One technique, as `codesign techniques` lists it and commands and searches name it.

    Attributes:
        name: on the command line, and before its parameters: `lsh.hashes`.
        title: what papers call it.
        axis: one of `AXES`.
        word: one of `WORDS`.
        grain: of what it decides: sub-vector, position, output, channel, frame, ...
        rule: in a sentence or two, what is decided and how.
        evidence: what is looked at to know it.
        source: paper, venue and year.
        policy: the class that decides, whose fields are its settings; `None` where no policy does
            (`how` then says what to use).
        how: how it is used where that is not `--technique`; empty where it is.
        units: fields of a design that it runs on.
        options: fields of a design that it makes use of where they are there; a search tries it
            with and without.
        trained: what must be trained for it; empty for nothing.
        published: under which names of `published_techniques.csv` its figures are.
        choices: field of the policy -> what a search chooses from unless it is told otherwise;
            numbers are from small to large.
        start: field -> value tried first, of each choice, and of further fields that are set but
            not searched.
        own: fields that each group of layers has its own of: how much its layers bear differs.
        hardware: path of a field of its units -> choices, likewise.

    Raises:
        ConfigError: the axis or word is none, or there is neither a policy nor another way.
    """

    name: str
    title: str
    axis: str
    word: str
    grain: str
    rule: str
    evidence: str
    source: str
    policy: type[ReusePolicy] | None = None
    how: str = ""
    units: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    trained: str = ""
    published: tuple[str, ...] = ()
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    hardware: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The words must be those of the box."""
        broken = [
            f"Technique[{show(self.name, str)}].{name} must be of {', '.join(known)}, got "
            f"{show(given, str)}; {choose(given, known)}"
            for name, given, known in (("axis", self.axis, AXES), ("word", self.word, WORDS))
            if given not in known
        ]
        if (self.policy is None) == (not self.how):
            broken.append(
                f"Technique[{show(self.name, str)}] must have a policy, or say how it is used "
                "without one; give one of the two"
            )
        if broken:
            raise ConfigError(broken)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the policy."""
        if self.policy is None:
            return ()
        return tuple(each.name for each in fields(self.policy) if each.init)  # type: ignore[arg-type]

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of the policy that have no default, and that the technique does not start with."""
        if self.policy is None:
            return ()
        known = {*self.start, *self.choices}
        return tuple(
            each.name
            for each in fields(self.policy)  # type: ignore[arg-type]
            if each.init
            and each.default is MISSING
            and each.default_factory is MISSING
            and each.name not in known
        )


_KNOWN: dict[str, Technique] = {}


def register(technique: Technique) -> Technique:
    """Let commands and searches name a technique; the last of a name is the one.

    Called where the policy is written, in the package and in files of a user's own.
    """
    _KNOWN[technique.name] = technique
    return technique


def techniques() -> Mapping[str, Technique]:
    """Name -> technique, in alphabetical order."""
    return MappingProxyType(dict(sorted(_KNOWN.items())))
