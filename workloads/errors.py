"""The one error of this room."""

from __future__ import annotations


class TraceError(ValueError):
    """A workload that can't be captured, stored or read.

    The message names where it happened (layer or file), the rule, what was found, and the fix.
    """
