"""Where a training stands, on disk: tensors in safetensors, all else as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from workloads.models.errors import ModelError
from workloads.models.weights import read_metadata, read_tensors, save_tensors
from workloads.training.classifier import TrainingError

_FORMAT = 2
_FACTS = "checkpoint"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a training stands after an epoch.

    Attributes:
        tensors: group, such as `model` -> name -> tensor; group names hold no slash.
        facts: plain values, as JSON keeps them.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write it as a whole or not at all, in place of the one before.

        Raises:
            TrainingError: the file can't be written.
        """
        flat = {
            f"{group}/{name}": tensor
            for group, named in self.tensors.items()
            for name, tensor in named.items()
        }
        text = json.dumps({"format": _FORMAT, **self.facts}, allow_nan=False)
        try:
            save_tensors(flat, path, metadata={_FACTS: text})
        except ModelError as error:
            raise TrainingError(f"checkpoint: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read one.

        Raises:
            TrainingError: there is none, it is damaged, or of another format.
        """
        try:
            facts = json.loads(read_metadata(path)[_FACTS])
            flat = read_tensors(path)
        except ModelError as error:
            raise TrainingError(f"checkpoint: {error}, or train anew in another folder") from error
        except (KeyError, ValueError) as error:
            raise TrainingError(
                f"checkpoint {path} must have been written by training, got another file; start "
                "without resume, or name the folder of the training"
            ) from error
        if facts.pop("format", None) != _FORMAT:
            raise TrainingError(
                f"checkpoint {path} must be of format {_FORMAT}; go on with the version of this "
                "project that wrote it"
            )
        tensors: dict[str, dict[str, Tensor]] = {}
        for key, tensor in flat.items():
            group, _, name = key.partition("/")
            tensors.setdefault(group, {})[name] = tensor
        return cls(tensors=tensors, facts=facts)


def check_place(checkpoint: Path | None, resume: bool) -> None:
    """A training goes on only if asked to, and only where there is one."""
    if checkpoint is None:
        if resume:
            raise TrainingError("resume must come with out, got none; name the training's folder")
        return
    folder, exists = checkpoint.parent, checkpoint.is_file()
    if resume and not exists:
        raise TrainingError(f"{folder} has no checkpoint to go on from; start without resume")
    if exists and not resume:
        raise TrainingError(
            f"{folder} has the checkpoint of a training; go on with resume, or name another folder"
        )
