"""Switching a model between training and evaluation, whatever its modules do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import nn


@contextmanager
def training_mode(model: Any, training: bool) -> Iterator[None]:
    """Training or evaluation mode; then every module's own again.

    A module that has no modes to switch (frozen ones, exported programs) runs as it is.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    flags = [getattr(module, "training", None) for module in modules]
    try:
        if modules:
            switch_mode(model, training)
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            if flag is not None and module.training != flag:
                with suppress(AttributeError, RuntimeError):  # it can't have been set here either
                    module.training = flag


def switch_mode(module: nn.Module, training: bool) -> None:
    """`Module.train`, around modules that refuse it by design."""
    try:
        module.train(training)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        own = "train" in vars(module) or type(module).train is not nn.Module.train
        if own or not hasattr(module, "training"):
            return
        for child in module.children():  # one of those refused
            switch_mode(child, training)
