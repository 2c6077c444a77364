"""Whatever a weights file holds, it is loaded, or refused with the one error of its room."""

import io
import os
import random
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from tests.fuzzing import NASTY_VALUES, mutate_bytes
from workloads.models import ModelError, load_weights

ROUNDS = 600


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 2)


@pytest.fixture(scope="module")
def good():
    """Content of valid files by their suffix and kind."""
    model = Tiny()
    state = model.state_dict()
    optimiser = torch.optim.Adam(model.parameters())
    checkpoint = {
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "optimizer": optimiser.state_dict(),
        "best": np.float64(0.5),
        "epoch": 3,
    }
    return {
        "zip.pth": saved(state),
        "checkpoint.ckpt": saved(checkpoint),
        "old.pt": saved(state, _use_new_zipfile_serialization=False),
        "safe.safetensors": safetensors.torch.save(state),
    }


def saved(value, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def check(path) -> str:
    """What is told of a file; "" if it was loaded into a model that then works."""
    model = Tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            load_weights(model, path)
        except ModelError as error:
            told = str(error)
            assert os.path.basename(path) in told
            assert len(told) <= 2000
            assert "\x1b" not in told
            assert "two options" not in told
            return told
    assert all(bool(value.isfinite().all()) for value in model.parameters())
    return ""


def attack(good, folder, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    loaded = 0
    for _ in range(rounds):
        name = chance.choice(list(good))
        path = folder / name
        path.write_bytes(mutate_bytes(good[name], chance))
        loaded += not check(path)
    assert loaded < rounds  # some damage must be found


def test_good_files_load(good, tmp_path):
    for name, content in good.items():
        (tmp_path / name).write_bytes(content)
        assert check(tmp_path / name) == ""


def test_damaged_files(good, tmp_path):
    attack(good, tmp_path, ROUNDS, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_damaged_files(good, tmp_path, seed):
    attack(good, tmp_path, 2000, seed)


@pytest.mark.parametrize("place", ["weight", "name", "entry", "beside"])
def test_nasty_values(tmp_path, place):
    """A value for a tensor, for its name, for the whole entry, and beside the entry."""
    path = tmp_path / "w.pth"
    tried = 0
    for name, make in NASTY_VALUES.items():
        value, state = make(), dict(Tiny().state_dict())
        try:
            if place == "name":
                state[value] = torch.ones(2)
            content = {
                "weight": lambda s=state, v=value: {**s, "head.bias": v},
                "name": lambda s=state: s,
                "entry": lambda v=value: {"state_dict": v},
                "beside": lambda s=state, v=value: {"state_dict": s, "other": v},
            }[place]()
            torch.save(content, path)
        except Exception:  # what can't be pickled or be a name can't be brought either
            continue
        tried += 1
        told = check(path)
        assert told or place == "beside", name
    assert tried > 20


STRANGE = {
    "sparse": lambda t: t.to_sparse(),
    "rows": lambda t: t.to_sparse_csr(),
    "meta": lambda t: t.to("meta"),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "bool": lambda t: t.bool(),
    "int8": lambda t: t.to(torch.int8),
    "int64": lambda t: t.long(),
    "complex": lambda t: t.to(torch.complex64),
    "nested": lambda t: torch.nested.nested_tensor([t[0], t[1, :1]]),
    "nothing": lambda t: t[:0],
    "scalar": lambda t: t[0, 0],
    "huge": lambda t: torch.zeros(1).expand(10**9, 10**9),
    "nan": lambda t: t * float("nan"),
    "infinite": lambda t: t / 0,
    "beyond": lambda t: t.double().abs() + 1e300,
    "list": lambda t: t.tolist(),
    "array": lambda t: t.numpy(),
    "module": lambda t: nn.Linear(2, 2),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("old", [False, True])
def test_strange_tensors_are_named(tmp_path, kind, old):
    if old and kind in ("nested", "meta"):
        return  # PyTorch's format before zip files can't hold them
    state = dict(Tiny().state_dict())
    path = tmp_path / "w.pth"
    state["head.weight"] = STRANGE[kind](state["head.weight"])
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    told = check(path)
    # A whole module's file is refused before its names are known.
    assert ("whole pickled model" if kind == "module" else "head.weight") in told
