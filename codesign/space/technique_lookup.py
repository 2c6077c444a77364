"""Finding a technique, or several that follow each other, as a command line names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, get_type_hints

from accelerators import ConfigError
from accelerators.rules import choose, show
from codesign.space.lookup import find_policy
from codesign.space.techniques import THEN, chained
from codesign.space.values import read_value
from simulator import NoReuse, PerLayer, ReusePolicy, Technique, techniques
from workloads.traces.layer import Layer
from workloads.user_files import is_located


def find_technique(
    text: str,
    settings: Sequence[str] = (),
    *,
    layers: Sequence[Layer] = (),
    dense: Sequence[str] = (),
) -> ReusePolicy:
    """The policy of a technique, or of several, each on what those before it leave.

    Args:
        text: a name of `simulator.techniques()`, several with `+` between them, first the one that
            decides first, or `file.py:NAME` of a policy of one's own.
        settings: `FIELD=VALUE` each, of a field of its policy, or `NAME.FIELD=VALUE` where several
            have the field; others stay as the technique starts.
        layers: of the workload; a length that a technique starts with is cut to rows that are
            shorter.
        dense: patterns of layers that none of them decides on.

    Raises:
        ConfigError: there is no such technique, it is no policy, or a setting is none of it.
    """
    if is_located(text):
        found = find_policy(text, settings, option="--set")
        return PerLayer(dict.fromkeys(dense, NoReuse()), found) if dense else found
    names = [each.strip() for each in text.split(THEN)]
    entries = [_known(name) for name in names]
    given = _settings(entries, settings)
    made = [_made(technique, given[technique.name]) for technique in entries]
    for technique, policy in zip(entries, made, strict=True):
        _check_any(technique, policy, layers)
    own: dict[str, ReusePolicy] = dict.fromkeys(dense, NoReuse())
    above = made[:1] if made[0].is_above_layers and len(made) > 1 else []
    of_layers = made[len(above) :]
    if dense and made[0].is_above_layers and not above:
        raise ConfigError(
            f"--layer {dense[0]}=dense must go with a technique that decides on layers, got "
            f"{names[0]} alone, which decides on frames or tokens; leave it out"
        )
    free = ["length" not in given[technique.name] for technique in entries[len(above) :]]
    for layer in layers:
        cut = [
            _cut(each, layer) if is_free else each
            for each, is_free in zip(of_layers, free, strict=True)
        ]
        if cut != of_layers and not any(fnmatchcase(layer.name, each) for each in dense):
            own[layer.name] = chained(cut)
    rest = chained(of_layers)
    return chained([*above, PerLayer(own, rest) if own else rest])


def _cut(policy: ReusePolicy, layer: Layer) -> ReusePolicy:
    """The policy with a length that is at most that of the layer's rows."""
    if (getattr(policy, "length", None) or 0) <= layer.gemm.k:
        return policy
    return replace(policy, length=layer.gemm.k)  # type: ignore[type-var]


def _check_any(technique: Technique, policy: ReusePolicy, layers: Sequence[Layer]) -> None:
    """A technique must find a layer that it decides on; else the workload would run dense."""
    if not layers or policy.is_above_layers or any(map(policy.applies_to, layers)):
        return
    trained = f"; it must be trained: {technique.trained}" if technique.trained else ""
    raise ConfigError(
        f"technique {technique.name} must have a layer to decide on, got a workload without any"
        f"{trained}; `codesign techniques {technique.name}` says what it decides on"
    )


def _known(name: str) -> Technique:
    """The technique of a name that a policy decides.

    Raises:
        ConfigError: there is none.
    """
    known = techniques()
    if name not in known:
        built = [each.name for each in known.values() if each.policy is not None]
        raise ConfigError(
            f"--technique must be of {', '.join(built)}, several with {THEN} between them, or "
            f"file.py:NAME, got {show(name, str)}; {choose(name, list(known))}"
        )
    technique = known[name]
    if technique.policy is None:
        raise ConfigError(
            f"--technique {name} must be one that decides on a trace, got one that does not: "
            f"{technique.how}; `codesign techniques {name}` says more"
        )
    return technique


def owner_of(found: Sequence[Technique], path: str, value: str = "VALUE") -> Technique:
    """The one of some techniques that a setting is of.

    Args:
        found: the techniques.
        path: `FIELD`, or `NAME.FIELD` where several have the field.
        value: what it is set to, for messages.

    Raises:
        ConfigError: none has the field, or several.
    """
    name, _, of = path.rpartition(".")
    owners = [each for each in found if of in each.fields and name in ("", each.name)]
    if not owners:
        known = [
            own if len(found) == 1 else f"{each.name}.{own}"
            for each in found
            for own in each.fields
        ]
        raise ConfigError(
            f"--set must name a field of {THEN.join(each.name for each in found)}, "
            f"{', '.join(known) or 'which has none'}, got {path!r}; {choose(path, known)}"
        )
    if len(owners) > 1:
        raise ConfigError(
            f"--set {of} must say of which technique, got several that have it; write "
            + " or ".join(f"--set {each.name}.{of}={value}" for each in owners)
        )
    return owners[0]


def _settings(found: Sequence[Technique], settings: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Name of a technique -> field -> what it is set to."""
    given: dict[str, dict[str, Any]] = {each.name: {} for each in found}
    for text in settings:
        path, separator, value = text.partition("=")
        if not separator or not value:
            raise ConfigError(
                f"--set must be FIELD=VALUE, got {text!r}; write for example --set tolerance=0.2"
            )
        owner, of = owner_of(found, path, value), path.rpartition(".")[2]
        if of in given[owner.name]:
            raise ConfigError(f"--set {path} must be given once, got it again; leave one out")
        kinds = get_type_hints(owner.policy)
        given[owner.name][of] = read_value(f"--set {path}", value, kinds[of])
    return given


def _made(technique: Technique, given: Mapping[str, Any]) -> ReusePolicy:
    """The technique's policy, as it starts but for what is given."""
    assert technique.policy is not None
    missing = ", ".join(each for each in technique.needs if each not in given)
    if technique.fields and not technique.needs and not technique.start and not given:
        missing = " or ".join(technique.fields)  # until then it takes nothing off
    if missing:
        first = missing.partition(",")[0].partition(" ")[0]
        raise ConfigError(
            f"technique {technique.name} must be given {missing}, got nothing; add "
            f"--set {first}=VALUE, or set it up in a file of yours, --policy FILE.py:NAME"
        )
    return technique.policy(**{**technique.start, **given})
