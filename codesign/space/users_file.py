"""What a user names in a file or module of their own, which is executed: `file.py:NAME`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from accelerators import ConfigError
from accelerators.rules import choose

# Of the name of a module that was made of a file: other machines cannot import it.
PREFIX = "_users_file_"


def is_in_file(name: object) -> bool:
    """Whether a name is `file.py:NAME` or `package.module:NAME`."""
    location, separator, attribute = name.rpartition(":") if isinstance(name, str) else ("",) * 3
    return bool(separator and location) and attribute.isidentifier()


def users_object(name: str, wanted: str) -> Any:
    """What is called `NAME` in `file.py:NAME` or `package.module:NAME`.

    Args:
        name: where it is.
        wanted: what it is to be, for messages.

    Raises:
        ConfigError: there is none, or its file raises.
    """
    location, _, attribute = name.rpartition(":")
    if not is_in_file(name):
        raise ConfigError(
            f"{wanted} must be file.py:NAME or package.module:NAME, got {name!r}; write it so"
        )
    try:
        module = users_module(location) if location.endswith(".py") else _imported(location)
    except ConfigError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(
            f"{location!r} must be importable to find the {wanted} in it, got "
            f"{type(error).__name__}: {error}; check the name and the code"
        ) from error
    if not hasattr(module, attribute):
        known = [each for each in vars(module) if not each.startswith("_")]
        raise ConfigError(
            f"{wanted} {name!r} must exist, got no {attribute!r} in {location}; "
            f"{choose(attribute, known)}"
        )
    return getattr(module, attribute)


def _imported(location: str) -> ModuleType:
    return importlib.import_module(location)


def users_module(location: str) -> ModuleType:
    """The module of a Python file, made once for each of its contents.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(location).expanduser()
    if not path.is_file():
        raise ConfigError(f"file must exist, got {location!r}; check the path")
    # The same file gives the same classes, whichever name of it is asked for.
    key = hashlib.sha256(f"{path.resolve()}\0".encode() + path.read_bytes()).hexdigest()[:16]
    name = f"{PREFIX}{path.stem}_{key}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
