"""Finding what a command line names: by its name, or as `file.py:NAME` of a user's own.

An accelerator, a policy, a score, each layer's reuse and the captured model are found here; others,
such as an optimiser, by `find`, where their kind is at home.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from inspect import isabstract
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import simulator
from accelerators import Accelerator, ConfigError, presets
from accelerators.rules import choose, nearest
from codesign.space.values import can_be_written, read_value
from simulator import ClusterCache, LshReuse, NoReuse, PerLayer, ReusePolicy
from simulator.running.captured import check_model
from workloads.errors import show, told
from workloads.traces.scores import SCORES, NamedScore
from workloads.traces.trace import WorkloadTrace
from workloads.user_files import UserFileError, is_located, named_in

if TYPE_CHECKING:
    import torch

Found = TypeVar("Found")


def find(wanted: str, name: str, known: Mapping[str, Found], kind: type[Found]) -> Found:
    """What goes by a name: one of those known, or one of the user's own.

    Args:
        wanted: what is looked for, as messages call it: "accelerator".
        name: a key of `known`, or `file.py:NAME` or `package.module:NAME`, where NAME is one of the
            kind, or a class or function that gives one without arguments; it is executed.
        known: those that have a name.
        kind: what it must be.

    Raises:
        ConfigError: there is none, or it is of another kind.
    """
    if name in known:
        return known[name]
    if not is_located(name):
        raise _unknown(wanted, name, known)
    found = _located(wanted, name, kind)
    if isinstance(found, kind):
        return found
    try:
        made = found() if callable(found) else found
    except Exception as error:  # the user's code may raise anything
        raise _cannot_be_made(wanted, name, error) from error
    return _of_kind(wanted, name, made, kind)


def find_accelerator(name: str) -> Accelerator:
    """A preset, or a design of one's own; see `find`."""
    return find("accelerator", name, presets(), Accelerator)


def policies() -> dict[str, type[ReusePolicy]]:
    """Name -> class of each policy that `simulator` exports and that texts can set up."""
    exported = {name: getattr(simulator, name) for name in simulator.__all__}
    return {
        name: each
        for name, each in exported.items()
        if isinstance(each, type)
        and issubclass(each, ReusePolicy)
        and not isabstract(each)
        and all(can_be_written(kind) for kind in _needed(each).values())
    }


def find_policy(
    name: str,
    settings: Sequence[str] = (),
    *,
    searched: Mapping[str, Any] | None = None,
    option: str = "--policy-set",
) -> ReusePolicy:
    """A policy of `simulator` by its class name, or one of one's own: an instance or a class.

    Args:
        name: see `find`.
        settings: `FIELD=VALUE` each, of fields of its dataclass; others stay as they are.
        searched: field -> a choice of it, for a search that varies the policy's fields; those
            without a default take it.
        option: that gives the settings, for messages.

    Raises:
        ConfigError: there is none, or a setting names no field of it, or breaks a rule of it.
    """
    known = policies()
    exported = getattr(simulator, name, None) if name in simulator.__all__ else None
    if name not in known and isinstance(exported, type) and issubclass(exported, ReusePolicy):
        raise ConfigError(
            f"policy {name} must be set up in Python, as no text gives its fields, got its name; "
            f"make one in a file of yours and name it, FILE.py:NAME"
        )
    if name not in known and not is_located(name):
        raise _unknown("policy", name, known)
    found = known[name] if name in known else _located("policy", name, ReusePolicy)
    values = _policy_values(name, found, settings, option)
    needed = _needed(found)
    values = {key: value for key, value in (searched or {}).items() if key in needed} | values
    missing = [each for each in needed if each not in values]
    if missing:
        fix = f"{option} {missing[0]}=VALUE"
        if searched is not None:
            fix = f"--parameter policy.{missing[0]}=VALUE,VALUE"
        raise ConfigError(
            f"policy {name} must be given {', '.join(missing)}, got nothing; add {fix}"
        )
    try:
        if isinstance(found, ReusePolicy):
            return replace(found, **values) if values else found  # type: ignore[type-var]
        made = found(**values) if callable(found) else found
    except ConfigError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise _cannot_be_made("policy", name, error) from error
    return _of_kind("policy", name, made, ReusePolicy)  # type: ignore[type-abstract]


def _policy_values(name: str, found: Any, settings: Sequence[str], option: str) -> dict[str, Any]:
    """Field -> value, as the option gives them."""
    owner = found if isinstance(found, type) else type(found)
    types = get_type_hints(owner) if is_dataclass(owner) else {}
    known = [each.name for each in fields(owner) if each.init] if is_dataclass(owner) else []
    values: dict[str, Any] = {}
    for text in settings:
        field, separator, value = text.partition("=")
        if not separator or not value or field in values:
            raise ConfigError(
                f"{option} must be FIELD=VALUE, each field once, got {text!r}; write for "
                f"example {option} computed=0.5"
            )
        if field not in known:
            fix = choose(field, known) if known else "leave it out"
            raise ConfigError(
                f"{option} must name a field of {name}, {', '.join(known) or 'which has none'}"
                f", got {field!r}; {fix}"
            )
        values[field] = read_value(f"{option} {field}", value, types[field])
    return values


def _needed(found: Any) -> dict[str, Any]:
    """Field -> type of those that a class needs to be given."""
    if not isinstance(found, type) or not is_dataclass(found):
        return {}
    types = get_type_hints(found)
    return {
        each.name: types[each.name]
        for each in fields(found)
        if each.init and each.default is MISSING and each.default_factory is MISSING
    }


def _unknown(wanted: str, name: str, known: Iterable[str]) -> ConfigError:
    known = list(known)
    near = nearest(name, known)
    fix = f"use {near!r}" if near else "use one of these"
    if name.endswith(".py"):
        fix = f"use {name}:NAME"
    return ConfigError(
        f"{wanted} must be one of {', '.join(known)}, file.py:NAME or package.module:NAME, got "
        f"{name!r}; {fix}"
    )


def _located(wanted: str, name: str, kind: type) -> Any:
    try:
        return named_in(name, wanted, kind)
    except UserFileError as error:
        raise ConfigError(str(error)) from error


def _of_kind(wanted: str, name: str, made: Any, kind: type[Found]) -> Found:
    if not isinstance(made, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise ConfigError(
            f"{wanted} {name!r} must be {article} {kind.__name__}, got {type(made).__name__}; name "
            "one, or a class or function that gives one"
        )
    return made


def _cannot_be_made(wanted: str, name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{wanted} {name!r} must be made without further arguments, got {told(error)}; give it "
        "what it lacks, or defaults"
    )


def find_score(name: str) -> str | NamedScore:
    """A key of `workloads.traces.scores.SCORES`, or a function of one's own; see `find`.

    Raises:
        ConfigError: there is no such score, or it is no function.
    """
    if name in SCORES:
        return name
    if not is_located(name):
        raise _unknown("score", name, SCORES)
    found = _located("score", name, Callable)  # type: ignore[arg-type]
    if not callable(found):
        raise ConfigError(
            f"score {name!r} must be a function of the judged output and the labels, got "
            f"{type(found).__name__}; check the name"
        )
    return NamedScore(name=name, function=found)


def policy_from_options(
    *,
    hashes: int | None,
    length: int | None,
    layers: Sequence[str],
    scope: str,
    thresholds: str,
    learning: str,
    order: str,
    representative: str,
    accelerator: Accelerator,
) -> ReusePolicy:
    """The reuse policy that command line options describe.

    Args:
        hashes: of all layers that `layers` does not name; together with `length`.
        length: likewise.
        layers: `NAME=H,L` or `NAME=dense` each; NAME may hold `*` as in shell patterns.
        scope: `image`, `batch` or `stream`, whose clusters the design's own cache keeps.
        thresholds: of the hashes, as in `LshReuse`.
        learning: where hyperplanes come from, as in `LshReuse`.
        order: of a convolution's rows, likewise.
        representative: of a cluster, likewise.
        accelerator: projections are those of its front-end.

    Raises:
        ConfigError: an option is malformed, or the options do not go together.
    """
    if (hashes is None) != (length is None):
        raise ConfigError("--hashes and --length must be given together, got one; add the other")
    named = [_layer_option(layer) for layer in layers]
    if hashes is None and all(numbers is None for _, numbers in named):
        refuse_idle(
            {
                "--scope": scope != "image",
                "--thresholds": thresholds != "spread",
                "--learning": learning != "none",
                "--order": order != "channels_first",
                "--representative": representative != "centroid",
            },
            "with reuse, as --hashes and --length or --layer NAME=H,L ask for it",
        )
    if hashes is None and not layers:
        if accelerator.front_end is not None:
            raise ConfigError(
                f"accelerator {accelerator.name!r} has reuse units and must be told how to use "
                "them, got neither --hashes and --length nor --layer; try --hashes 10 --length 10, "
                "or an accelerator without reuse units"
            )
        return NoReuse()
    front_end = accelerator.front_end
    common: dict[str, Any] = {
        "scope": scope,
        "thresholds": thresholds,
        "learning": learning,
        "order": order,
        "representative": representative,
        "projection": "sign" if front_end is None else front_end.projection,
        "cache": (
            ClusterCache.of(accelerator.cache)
            if scope == "stream" and accelerator.cache is not None
            else None
        ),
    }
    policies: dict[str, ReusePolicy] = {}
    for name, numbers in named:
        if name in policies:
            raise ConfigError(
                f"--layer must name a layer once, got {show(name)} again; leave one out"
            )
        if numbers is None:
            policies[name] = NoReuse()
        else:
            policies[name] = LshReuse(hashes=numbers[0], length=numbers[1], **common)
    default: ReusePolicy = NoReuse()
    if hashes is not None and length is not None:
        default = LshReuse(hashes=hashes, length=length, **common)
    return PerLayer(policies, default) if policies else default


def refuse_idle(given: Mapping[str, bool], rule: str) -> None:
    """Refuse options that would have no effect.

    Args:
        given: option -> whether it was given.
        rule: with what they must come.

    Raises:
        ConfigError: with each of them.
    """
    idle = [option for option, is_given in given.items() if is_given]
    if idle:
        raise ConfigError(
            f"{', '.join(idle)} must come {rule}, got {'them' if len(idle) > 1 else 'it'} without, "
            f"which would change nothing; leave out {', '.join(idle)}"
        )


def _layer_option(text: str) -> tuple[str, tuple[int, int] | None]:
    """`conv1=15,5` as name, hashes and length; `conv1=dense` as name and `None`."""
    name, separator, setting = text.partition("=")
    if separator and name and setting == "dense":
        return name, None
    numbers = setting.split(",")
    if not separator or not name or len(numbers) != 2 or not all(n.isdecimal() for n in numbers):
        raise ConfigError(
            f"--layer must be NAME=HASHES,LENGTH or NAME=dense, got {text!r}; "
            "write for example --layer conv1=15,5"
        )
    return name, (int(numbers[0]), int(numbers[1]))


def loaded_model(name: str, weights: str | Path | None, *, seed: int) -> torch.nn.Module:
    """The model of a name, see `load_workload`, in eval mode."""
    from workloads import models, trained_cifarnet

    if name == "cifarnet" and weights is None:
        return trained_cifarnet("digits", seed=seed)[0].eval()
    return models.load(name, weights, seed=seed)


def captured_model(name: str, weights: Path | None, trace: WorkloadTrace) -> torch.nn.Module:
    """The model that a trace was captured of, checked on the trace's own inputs.

    Args:
        name: as in `load_workload`; CifarNet without weights is the one trained on the digits. It
            is quantised as the trace is.
        weights: a file that `workloads.models.load` reads, or None.
        trace: the trace.

    Raises:
        ConfigError: the model answers otherwise than it did when it was captured.
        ModelError, TraceError: it cannot be loaded or run.
    """
    from workloads import TraceError, models, quantise_as
    from workloads.models.integer_grid import is_quantised

    seed = trace.provenance.get("seed")
    model = loaded_model(name, weights, seed=seed if isinstance(seed, int) else 0)
    if any(layer.quantisation for layer in trace.layers) and not is_quantised(model):
        model = quantise_as(model, trace)
    try:
        check_model(trace, model)
    except models.ModelError:
        raise
    except (ConfigError, TraceError) as error:
        raise ConfigError(
            f"--model must be the model that was captured, with its weights, but {name!r} is not: "
            f"{error}. Give the same --model and --weights as to capture"
        ) from error
    return model
