"""What a user names in a file or module of their own, which is executed: `file.py:NAME`."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from accelerators import ConfigError
from accelerators.rules import choose, show

Found = TypeVar("Found")

# Of the name of a module that was made of a file: other machines cannot import it.
PREFIX = "_users_file_"


def is_located(name: str) -> bool:
    """Whether a name is `file.py:NAME` or `package.module:NAME`."""
    location, _, attribute = name.rpartition(":")
    return bool(location and attribute)


def find(wanted: str, name: str, known: Mapping[str, Found], kind: type[Found]) -> Found:
    """What goes by a name: one of those known, or one of the user's own.

    Args:
        wanted: what is looked for, for messages.
        name: a key of `known`, `file.py:NAME` or `package.module:NAME`, where NAME is one of the
            kind, or a class or function that gives one without arguments; it is executed.
        known: those that have a name.
        kind: what it must be.

    Raises:
        ConfigError: there is none, or it is of another kind, or its file raises.
    """
    if name in known:
        return known[name]
    location, _, attribute = name.rpartition(":")
    try:
        if not is_located(name):
            raise ConfigError(
                f"{wanted} must be one of {', '.join(known)}, file.py:NAME or "
                f"package.module:NAME, got {name!r}; {choose(name, tuple(known))}"
            )
        is_file = location.endswith(".py")
        module = _executed(location) if is_file else importlib.import_module(location)
        if not hasattr(module, attribute):
            raise ConfigError(
                f"{wanted} {name!r} must exist, got no {attribute!r} in {location}; "
                f"{choose(attribute, tuple(vars(module)))}"
            )
        found = getattr(module, attribute)
        if not isinstance(found, kind) and callable(found):
            found = found()
    except ConfigError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(
            f"{location!r} must be importable to find the {wanted} in it, got "
            f"{type(error).__name__}: {error}; check the name and the code"
        ) from error
    if not isinstance(found, kind):
        raise ConfigError(
            f"{wanted} {name!r} must be of the class {kind.__name__}, got {show(found)}; name one, "
            "or a class or function that gives one"
        )
    return found


def _executed(location: str) -> ModuleType:
    """The module of a Python file, made once for each of its contents.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(location).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"file must exist, got {location!r}; check the path")
    text = path.read_text(encoding="utf-8-sig")
    key = hashlib.sha256(f"{path}\n{text}".encode()).hexdigest()[:16]
    name = f"{PREFIX}{path.stem}_{key}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # dataclasses look their module up there
        try:
            exec(compile(text, str(path), "exec", dont_inherit=True), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
