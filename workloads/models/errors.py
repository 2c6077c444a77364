"""What can be wrong with a model or its weights."""

from __future__ import annotations

from workloads.errors import InputError


class ModelError(InputError):
    """A model or weights file that can't be loaded; says what was given and the fix."""
