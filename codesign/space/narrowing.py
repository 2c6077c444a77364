"""Other choices for parameters, and parameters of one's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from accelerators import ConfigError
from codesign.space.fields import wrong_kinds
from codesign.space.parameters import Parameter
from codesign.space.starting import meant


def with_choices(
    parameters: Sequence[Parameter],
    choices: Mapping[str, Sequence[Any]],
    possible: Mapping[str, Any],
    *,
    fixed: Collection[str],
) -> tuple[Parameter, ...]:
    """Parameters with other choices for some, and those of one's own after them.

    Args:
        parameters: of a space.
        choices: parameter, or what is possible -> its values.
        possible: further things that a parameter may be -> their own value.
        fixed: parameters that have no values but their own choices.

    Raises:
        ConfigError: there is no such parameter or field, or it cannot have these values.
    """
    known = {parameter.name: parameter for parameter in parameters}
    problems: list[str] = []
    own: list[Parameter] = []
    for name, values in choices.items():
        if name in known:
            problems += known[name].problems(values, known=name in fixed)
        elif name in possible:
            problems += wrong_kinds(f"space.parameters.{name!r}", values, possible[name])
            try:
                own.append(Parameter.of(name, values))
            except ConfigError as error:
                problems += [f"space.parameters.{name!r}: {each}" for each in error.violations]
        else:
            problems.append(
                f"space.parameters must name parameters, got {name!r}; "
                f"{meant(name, [*known, *possible])}"
            )
    if problems:
        raise ConfigError(problems)
    changed = (replace(p, choices=tuple(choices.get(p.name, p.choices))) for p in parameters)
    return (*changed, *own)
