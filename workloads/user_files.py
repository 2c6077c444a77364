"""Python files and modules of a user's own, and what is found in them by name.

A file is executed once in a process, under a module name that follows from its path and its text:
what it defines pickles by reference, and another process that has read the same files finds it.
It may import files beside it; these do not travel to another machine.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from workloads.errors import InputError


class UserFileError(InputError):
    """A file or module that is not there, cannot be run, or lacks what was asked of it."""


@dataclass(frozen=True, kw_only=True)
class UserFile:
    """A file that was read.

    Attributes:
        path: of the file.
        text: of the file.
        module: the name under which it was executed.
    """

    path: str
    text: str
    module: str


_READ: dict[str, UserFile] = {}


class UserFiles:
    """The files read so far. Where this is unpickled, they are executed before what follows it.

    Their text travels along, so that they need not be on the other machine.
    """

    def __reduce__(self) -> tuple[Callable[..., UserFiles], tuple[tuple[UserFile, ...]]]:
        return _executed, (tuple(_READ.values()),)


def _executed(files: tuple[UserFile, ...]) -> UserFiles:
    for each in files:
        _execute(each)
    return UserFiles()


def is_located(name: str) -> bool:
    """Whether a name says where it is: `file.py:NAME` or `package.module:NAME`."""
    location, _, attribute = name.rpartition(":")
    return bool(location and attribute)


def named_in(name: str, wanted: str, kind: type | tuple[type, ...] = ()) -> Any:
    """What `file.py:NAME` or `package.module:NAME` names; the file or module is executed.

    Args:
        name: see `is_located`; the path is relative to where the program runs.
        wanted: what is looked for, for a message: "accelerator".
        kind: what the message tells of the others that are there; any by default.

    Raises:
        UserFileError: it is not there, or what it is in cannot be executed.
    """
    location, _, attribute = name.rpartition(":")
    module = _module(location, wanted)
    if attribute in vars(module):
        return vars(module)[attribute]
    near = difflib.get_close_matches(attribute, vars(module), n=1)
    others = [each for each, value in vars(module).items() if kind and isinstance(value, kind)]
    listed = ", ".join(others) or f"no {wanted}s"
    hint = f"did you mean {near[0]!r}?" if near else f"it has {listed}"
    raise UserFileError(f"{wanted} {name!r} must exist, got no {attribute!r} in {location}; {hint}")


def raised_in(error: BaseException) -> str | None:
    """Where in a file of the user's own an error was raised or passed through last, if anywhere."""
    paths = {each.path for each in _READ.values()}
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if each.filename in paths]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else None


def _module(location: str, wanted: str) -> ModuleType:
    try:
        if not location.endswith(".py"):
            return importlib.import_module(location)
        path = Path(location).expanduser().resolve()
        if not path.is_file():
            raise UserFileError(f"{wanted} file must exist, got {location!r}; check the path")
        text = path.read_text(encoding="utf-8-sig")
        digest = hashlib.sha256(f"{path}\n{text}".encode()).hexdigest()[:16]
        module = f"_user_file_{path.stem}_{digest}"
        return _execute(UserFile(path=str(path), text=text, module=module))
    except UserFileError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UserFileError(
            f"{location!r} must be importable to find the {wanted} in it, got "
            f"{type(error).__name__}: {error}; check the name and the code"
        ) from error


def _execute(file: UserFile) -> ModuleType:
    """The module of a file: what it was made the first time."""
    if file.module not in sys.modules:
        module = ModuleType(file.module)
        module.__file__ = file.path
        # Before it is executed: dataclasses look their module up.
        sys.modules[file.module] = module
        folder = str(Path(file.path).parent)
        if folder not in sys.path:  # files beside it, behind all that is installed
            sys.path.append(folder)
        try:
            exec(compile(file.text, file.path, "exec", dont_inherit=True), vars(module))
        except BaseException:
            del sys.modules[file.module]
            raise
    _READ[file.module] = file
    return sys.modules[file.module]
