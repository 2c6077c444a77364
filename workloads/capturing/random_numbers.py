"""Random numbers that a model draws while it runs: seeded, and noticed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# Numpy takes seeds of 32 bits.
_NUMPY_SEEDS = 2**32


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Run with the generators of Python, numpy and PyTorch seeded, then as they were before.

    Args:
        seed: None leaves them alone.
    """
    if seed is None:
        yield
        return
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % _NUMPY_SEEDS)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class Draws:
    """Context that tells afterwards whether random numbers were drawn in it.

    It looks at the generators that everybody shares. Those that a model makes for itself stay
    unseen.

    Attributes:
        noticed: whether any was drawn.
    """

    def __init__(self) -> None:
        self.noticed = False
        self._before: Any = None

    def __enter__(self) -> Draws:
        self._before = _states()
        return self

    def __exit__(self, *_error: object) -> None:
        self.noticed = _states() != self._before


def _states() -> tuple[object, ...]:
    """What changes with every number that is drawn."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return (
        random.getstate(),
        _plain(np.random.get_state(legacy=False)),
        *(state.numpy().tobytes() for state in (torch.get_rng_state(), *gpus)),
    )


def own_generator(value: object) -> object:
    """The state of a generator that a module keeps for itself; None of anything else."""
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return _plain(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return _plain(value.get_state(legacy=False))
    return None


def _plain(state: Any) -> object:
    """A numpy generator's state as what `==` compares."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state
