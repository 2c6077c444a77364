"""Whatever a user brings, a message about it can be read."""

import pytest

from workloads import TraceError
from workloads.errors import LONGEST_MESSAGE, InputError, plain, show, told


class Unspeakable:
    def __repr__(self):
        raise RuntimeError("no")


def test_control_characters_are_escaped_and_terminal_codes_dropped():
    assert plain("a\x00b\x1b[1mc\x1b[0m\td\x07") == "a\\x00bc\\td\\x07"


def test_lone_surrogates_are_escaped_so_that_the_message_can_be_printed():
    assert plain("\udc80") == "\\udc80"
    plain("\ud800x").encode()


def test_ends_of_lines_and_letters_of_any_script_stay():
    assert plain("één\n二") == "één\n二"


def test_a_long_message_keeps_its_beginning_and_its_end():
    message = plain("place " + "x" * 10**6 + " fix")
    assert len(message) == LONGEST_MESSAGE
    assert message.startswith("place x")
    # What is far beyond the limit is not looked at.
    assert plain("place " + "x" * 10**4 + " fix").endswith(" fix")


@pytest.mark.parametrize("kind", [TraceError, *InputError.__subclasses__()])
def test_every_error_about_input_is_plain(kind):
    assert str(kind("\x1b[1m" + "y" * 10**4)) == "y" * 1495 + " ... " + "y" * 500


@pytest.mark.parametrize(
    "value",
    [Unspeakable(), 10**5000, "\udc80" * 100, b"\x00" * 500, [1] * 99],
    ids=["no repr", "digits", "surrogates", "bytes", "list"],
)
def test_any_value_is_shown_in_a_few_characters(value):
    text = show(value)
    assert len(text) <= 60
    text.encode()


def test_numbers_of_thousands_of_digits_are_told_by_their_bits():
    assert show(10**5000) == "an integer of 16610 bits"


def test_an_error_of_a_library_is_one_line():
    assert told(RuntimeError("first\nsecond")) == "RuntimeError: first"
    assert told(KeyError()) == "KeyError"
