"""Weights of few bits on disk: what is rounded, what is not, and files that are refused."""

import gzip

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import nn

from workloads.models import ModelError, load_weights, save_weights
from workloads.models.packed_weights import packed, unpacked


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_whole_numbers_by_hand():
    # Scales 12.7 / 127 = 0.1 and, of a channel of zeros, 1.
    weight = torch.tensor([[12.7, -0.26], [0.0, 0.0]])
    made = packed({"w": weight, "b": torch.tensor([0.3]), "n": torch.tensor(3)})
    assert made["w"].tolist() == [[127, -3], [0, 0]]
    assert torch.allclose(made["w.scale"], torch.tensor([0.1, 1.0]))
    assert made["b"].item() == pytest.approx(0.3) and made["n"].item() == 3
    assert torch.allclose(unpacked(made)["w"], torch.tensor([[12.7, -0.3], [0.0, 0.0]]))


@pytest.mark.parametrize("bits", [2, 7, 8])
def test_a_weight_is_off_by_half_a_step_at_most(bits):
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    found = unpacked(packed({"w": weight}, bits=bits))
    assert found.keys() == {"w"} and found["w"].dtype == torch.float32
    step = weight.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
    off = (found["w"] - weight).flatten(1).abs().amax(1)
    assert (off <= step / 2 * 1.0001).all()


@pytest.mark.parametrize("suffix", [".safetensors", ".safetensors.gz"])
def test_files_load_as_any_other(suffix, tmp_path):
    model, again = network(), network(seed=1)
    path = save_weights(model, tmp_path / f"w{suffix}", weight_bits=8)
    load_weights(again, path)
    expected = unpacked(packed(model.state_dict()))
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_a_compressed_file_is_one_of_safetensors(tmp_path):
    model = network()
    plain = save_weights(model, tmp_path / "w.safetensors")
    compressed = save_weights(model, tmp_path / "w.safetensors.gz")
    assert gzip.decompress(compressed.read_bytes()) == plain.read_bytes()
    before = compressed.read_bytes()
    assert save_weights(model, compressed).read_bytes() == before  # holds no time of its own


def test_what_has_no_scale_stays_whole(tmp_path):
    tensors = {"weight": torch.ones(2, 2, dtype=torch.int8), "weight.scale": torch.ones(3)}
    save_file(tensors, tmp_path / "w.safetensors")
    assert unpacked(tensors).keys() == load_file(tmp_path / "w.safetensors").keys()
    with pytest.raises(ModelError, match=r"weight\.scale is not in the model"):
        load_weights(nn.Linear(2, 2, bias=False), tmp_path / "w.safetensors")


class TestRefused:
    @pytest.mark.parametrize("bits", [1, 9, 8.0, True])
    def test_bits(self, bits):
        with pytest.raises(ModelError, match=r"whole number from 2 to 8, got"):
            packed({}, bits=bits)

    def test_weights(self):
        with pytest.raises(ModelError, match="finite, got NaN or infinity in w;"):
            packed({"w": torch.full((2, 2), torch.inf)})
        with pytest.raises(ModelError, match=r"leave the name w\.scale free"):
            packed({"w": torch.ones(2, 2), "w.scale": torch.ones(2)})

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"no gzip", "not readable as safetensors"),
            (gzip.compress(b"no safetensors"), "not readable as safetensors"),
            (gzip.compress(save({"w": torch.ones(4)}))[:-9], "not readable as safetensors"),
            (gzip.compress(bytes(10**6)), "must unpack to at most 100 times their size"),
        ],
    )
    def test_files(self, content, message, tmp_path):
        (tmp_path / "w.safetensors.gz").write_bytes(content)
        with pytest.raises(ModelError, match=message):
            load_weights(network(), tmp_path / "w.safetensors.gz")
