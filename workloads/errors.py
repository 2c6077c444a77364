"""What can be wrong with what a user brings, and how to say it in one message that can be read."""

from __future__ import annotations

import re
import reprlib

# Of one message: what a library tells may be as long as the file that it could not read.
LONGEST_MESSAGE = 2000
_SHOWN_CHARACTERS = 60
_SHOWN_INT_BITS = 64
# Colours and cursor movements, which some libraries put into their messages.
_TERMINAL_CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class InputError(ValueError):
    """Something given by a user breaks a rule; the message is as `plain` makes it."""

    def __init__(self, message: str) -> None:
        super().__init__(plain(message))


class NotCountedWarning(UserWarning):
    """A captured model runs operations that may hide products, which the trace then lacks."""


class ClassOrderWarning(UserWarning):
    """The labels of a captured batch come class after class, which flatters reuse within it."""


class TraceError(InputError):
    """A workload that can't be captured, stored or read.

    The message names where it happened (layer or file), the rule, what was found, and the fix.
    """


def plain(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """A text as a terminal, a log and a page can show it.

    Control characters and lone surrogates are escaped, but for the end of a line; terminal codes
    are dropped. Of a text that is too long the middle is left out: the place stands at the
    beginning and the fix at the end.

    Args:
        text: from anywhere, such as a library's message or a name in a file.
        longest: characters, at least 20.
    """
    text = _TERMINAL_CODES.sub("", text[: 50 * longest])
    text = "".join(c if c == "\n" or c.isprintable() else _escaped(c) for c in text)
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end - 5]} ... {text[-end:]}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def show(value: object) -> str:
    """A short text of any value for a message. Never raises, whatever `repr` of the value does."""
    if type(value) is int and value.bit_length() > _SHOWN_INT_BITS:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value) if isinstance(value, str | type) else reprlib.repr(value)
    except Exception:  # a value given by a user may break even repr; its type still says enough
        text = f"a {type(value).__name__} without a repr"
    return plain(text, _SHOWN_CHARACTERS)


def told(error: BaseException, longest: int = 300) -> str:
    """What another library's error says, in one line: its type, and the first line of its text."""
    try:
        text = str(error).strip()
    except Exception:  # an error's own text may break too
        text = ""
    first = text.partition("\n")[0].strip()
    return plain(f"{type(error).__name__}: {first}" if first else type(error).__name__, longest)
