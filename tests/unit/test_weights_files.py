"""Weights as training scripts and frameworks leave them: found and told, or refused and named."""

import argparse
import os
import pathlib
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from workloads.compressing.quantising import quantise
from workloads.models import ModelError, load_weights, save_weights, weights_source
from workloads.models.integer_grid import INPUT_GRID
from workloads.models.quantised_weights import load_quantised
from workloads.models.weights import Named


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()


@pytest.fixture
def state():
    torch.manual_seed(1)
    return dict(Net().state_dict())


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def loaded(content, path, model=None) -> nn.Module:
    torch.save(content, path)
    model = model or Net()
    load_weights(model, path)
    return model


def is_same(model, state) -> bool:
    own = [value for value in model.state_dict().values()]
    return all(torch.equal(a, b) for a, b in zip(own, state.values(), strict=True))


class TestNames:
    @pytest.mark.parametrize(
        "prefix",
        [
            "_orig_mod.",
            "module.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "model.",
            "net.",
            "backbone.encoder.",
            "model._orig_mod.",
            "_fsdp_wrapped_module.",
        ],
    )
    def test_prefixes_are_taken_off(self, prefix, state, tmp_path):
        assert is_same(loaded(prefixed(prefix, state), tmp_path / "w.pth"), state)

    def test_wrappers_inside_a_name(self, state, tmp_path):
        """As of a model one part of which was compiled, or spread over devices."""
        inside = {
            name.replace("conv.", "conv._orig_mod.").replace("head.", "head.module."): value
            for name, value in state.items()
        }
        assert is_same(loaded(inside, tmp_path / "w.pth"), state)

    def test_a_compiled_model_takes_plain_names(self, state, tmp_path):
        model = Net()
        wrapped = nn.DataParallel(model)
        loaded(state, tmp_path / "w.pth", wrapped)
        assert is_same(model, state)

    @pytest.mark.parametrize("prefix", ["", "model."])
    def test_a_prefix_of_the_model(self, prefix, state, tmp_path):
        model = loaded(prefixed(prefix, state), tmp_path / "w.pth", Wrapped())
        assert is_same(model, state)

    def test_own_modules_called_as_wrappers_keep_their_names(self, tmp_path):
        model = nn.ModuleDict({"module": nn.Linear(2, 2), "x": nn.ModuleDict({})})
        again = nn.ModuleDict({"module": nn.Linear(2, 2), "x": nn.ModuleDict({})})
        loaded(model.state_dict(), tmp_path / "w.pth", again)
        assert torch.equal(model["module"].weight, again["module"].weight)

    def test_what_was_taken_is_told(self, state, tmp_path):
        content = {"state_dict": prefixed("model.", state)}
        model = loaded(content, tmp_path / "w.ckpt")
        assert weights_source(model).endswith("entry 'state_dict', names after 'model.'")

    def test_a_misfit_shows_both_names_and_what_was_tried(self, state, tmp_path):
        other = {name.replace("conv.", "stem."): value for name, value in state.items()}
        with pytest.raises(ModelError) as caught:
            loaded({"model": other}, tmp_path / "w.pth")
        told = str(caught.value)
        assert "where the model has 'conv.weight' the file has 'stem.weight'" in told
        assert "tried in entry 'model': the names as they are, without '_orig_mod'" in told

    def test_names_outside_the_prefix_are_not_dropped(self, state, tmp_path):
        content = prefixed("model.", state) | {"criterion.weight": torch.ones(2)}
        with pytest.raises(ModelError, match=r"criterion\.weight is not in the model") as caught:
            loaded(content, tmp_path / "w.pth")
        assert "save the tensors after 'model.' alone, without the others" in str(caught.value)

    def test_names_and_arrays_are_told_in_one_line(self, state, tmp_path):
        with pytest.raises(ModelError, match=r"fc\\nloaded is not in the model"):
            loaded({**state, "fc\nloaded": torch.ones(1)}, tmp_path / "w.pth")
        arrays = {name: value.numpy() for name, value in state.items()}
        with pytest.raises(ModelError, match=r"conv\.weight \(numpy\.ndarray\)"):
            loaded(arrays, tmp_path / "w.pth")

    def test_another_layout_behind_a_prefix(self, state, tmp_path):
        """A model that knows other layouts than its own is asked about names without prefixes."""

        class Translating(Net):
            def named_as_here(self, tensors):
                for given, tensor in tensors.items():
                    name = given.replace("stem.", "conv.")
                    yield Named(name=name, given=given, tensor=tensor)

        other = {name.replace("conv.", "stem."): value for name, value in state.items()}
        content = {"model": prefixed("module.backbone.", other)}
        assert is_same(loaded(content, tmp_path / "w.pth", Translating()), state)
        other["stem.weight"] = torch.ones(3)
        with pytest.raises(ModelError, match=r"conv.weight \(of stem.weight\) has shape \(3,\)"):
            loaded(other, tmp_path / "w.pth", Translating())


class TestEntries:
    @pytest.mark.parametrize(
        "key",
        [
            "state_dict",
            "model",
            "model_state_dict",
            "model_state",
            "net",
            "network",
            "weights",
            "params",
            "state",
            "model_ema",
            "anything",
        ],
    )
    def test_the_one_entry_of_tensors(self, key, state, tmp_path):
        model = Net()
        optimiser = torch.optim.Adam(model.parameters())
        model.head(torch.ones(1, 4)).sum().backward()
        optimiser.step()
        content = {
            key: state,
            "optimizer_state_dict": optimiser.state_dict(),
            "callbacks": {"best": {"score": torch.tensor(1.0)}},
            "best_acc1": torch.tensor(77.5),
            "epoch": 3,
            "loss": 0.25,
        }
        assert is_same(loaded(content, tmp_path / "w.pth"), state)

    def test_plain_values_of_other_packages_beside_tensors(self, state, tmp_path):
        content = {
            "state_dict": state,
            "best": np.float64(91.0),
            "count": np.int64(3),
            "history": np.arange(3.0),
            "args": argparse.Namespace(lr=0.1, out=pathlib.Path("out")),
        }
        assert is_same(loaded(content, tmp_path / "w.pth"), state)

    def test_averages_are_left_aside_and_named(self, state, tmp_path):
        average = {name: value + 1 for name, value in state.items()}
        model = loaded({"state_dict": state, "state_dict_ema": average}, tmp_path / "w.pth")
        assert is_same(model, state)
        assert "without the averages in entry 'state_dict_ema'" in weights_source(model)
        flat = prefixed("model.", state) | prefixed("ema_model.module.", average)
        assert is_same(loaded(flat, tmp_path / "w.pth"), state)

    def test_an_average_of_pytorch(self, state, tmp_path):
        average = torch.optim.swa_utils.AveragedModel(loaded(state, tmp_path / "w.pth"))
        assert is_same(loaded(average.state_dict(), tmp_path / "a.pth"), state)

    def test_several_that_fit_are_named(self, state, tmp_path):
        with pytest.raises(ModelError, match="2 sets of tensors do: entry 'a'; entry 'b'; save"):
            loaded({"a": state, "b": dict(state)}, tmp_path / "w.pth")

    def test_of_several_the_one_that_fits(self, state, tmp_path):
        content = {"generator": state, "critic": nn.Linear(900, 2).state_dict()}
        assert is_same(loaded(content, tmp_path / "w.pth"), state)


class TestNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_floating_point_of_any_width(self, dtype, state, tmp_path):
        other = {n: v.to(dtype) if v.is_floating_point() else v for n, v in state.items()}
        model = loaded(other, tmp_path / "w.pth")
        assert torch.equal(model.head.weight, state["head.weight"].to(dtype).float())
        assert ("rounded from float64" in weights_source(model)) == (dtype == torch.float64)

    @pytest.mark.parametrize(
        ("name", "change", "told"),
        [
            ("head.bias", lambda t: t.bool(), "head.bias is bool, the model's float32"),
            ("head.bias", lambda t: t.to(torch.int8), "head.bias is int8"),
            ("head.bias", lambda t: t.to(torch.complex64), "head.bias is complex64"),
            ("head.bias", lambda t: t * float("nan"), "head.bias holds NaN"),
            ("head.bias", lambda t: t.abs() / 0, "head.bias holds infinite values"),
            ("head.bias", lambda t: t.double().abs() + 1e300, "values beyond the model's float32"),
            ("norm.running_var", lambda t: t * float("nan"), "norm.running_var holds NaN"),
            ("norm.num_batches_tracked", lambda t: t + 0.5, "that the model's int64 can't hold"),
            ("head.weight", lambda t: t.to_sparse(), r"head.weight is not dense \(torch.sparse"),
            ("head.weight", lambda t: t.to("meta"), "head.weight is meta"),
        ],
    )
    def test_others_are_named_and_change_nothing(self, name, change, told, state, tmp_path):
        model = Net()
        before = {each: value.clone() for each, value in model.state_dict().items()}
        with pytest.raises(ModelError, match=told):
            loaded({**state, name: change(state[name])}, tmp_path / "w.pth", model)
        assert is_same(model, before)

    def test_infinite_masks_are_buffers_and_stay(self, tmp_path):
        class Masked(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

        assert loaded(Masked().state_dict(), tmp_path / "w.pth", Masked()).mask[1] == -torch.inf

    def test_names_must_be_texts(self, state, tmp_path):
        with pytest.raises(ModelError, match="the name 5 must be a text"):
            loaded({**state, 5: torch.ones(1)}, tmp_path / "w.pth")

    def test_models_without_values_are_refused(self, state, tmp_path):
        for model, told in ((Net().to("meta"), "on the device meta"), (nn.LazyLinear(3), "lazy")):
            with pytest.raises(ModelError, match=told):
                loaded(state, tmp_path / "w.pth", model)

    def test_grids_are_checked(self, tmp_path):
        model = nn.Sequential(nn.Linear(4, 2))
        quantised = quantise(model, torch.rand(8, 4))
        path = save_weights(quantised, tmp_path / "w.safetensors")
        assert is_same(load_quantised(model, path), quantised.state_dict())
        for field, value in (("scale", torch.zeros(1)), ("zero_point", torch.tensor([300]))):
            wrong = quantised.state_dict() | {f"0.{INPUT_GRID}.{field}": value}
            torch.save(wrong, tmp_path / "w.pth")
            with pytest.raises(ModelError, match=f"the grid of 0: .*{field}"):
                load_quantised(model, tmp_path / "w.pth")


class TestFiles:
    def test_a_whole_model_is_refused_unrun(self, tmp_path):
        with pytest.raises(ModelError, match="whole pickled model") as caught:
            loaded({"model": Net(), "epoch": 1}, tmp_path / "w.pth")
        assert "torch.nn.modules.conv.Conv2d" in str(caught.value)
        assert "two options" not in str(caught.value)

    def test_a_type_that_is_no_tensor_is_named(self, state, tmp_path):
        class Settings(dict):
            pass

        Settings.__qualname__ = "Settings"
        Settings.__module__ = __name__
        globals()["Settings"] = Settings
        with pytest.raises(ModelError, match=r"objects of type .*\.Settings, which are no"):
            loaded({"model": state, "settings": Settings()}, tmp_path / "w.pth")

    def test_torchscript_says_how_to_save(self, tmp_path):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
        with pytest.raises(ModelError, match=r"TorchScript archive.*torch\.jit\.load\(FILE\)"):
            load_weights(nn.Linear(2, 2), tmp_path / "w.pt")

    def test_archives_that_claim_more_than_they_have(self, state, tmp_path):
        torch.save(state, tmp_path / "w.pth")
        with (
            zipfile.ZipFile(tmp_path / "w.pth") as made,
            zipfile.ZipFile(tmp_path / "z.pth", "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for name in made.namelist():
                packed.writestr(name, made.read(name))
            packed.writestr("w/data/99", bytes(10**7))
        with pytest.raises(ModelError, match=r"claim 10[0-9]+ bytes, more than the file's"):
            load_weights(Net(), tmp_path / "z.pth")

    @pytest.mark.parametrize("name", ["w.tar", "w.bin", "w.zip.pth"])
    def test_other_archives(self, name, tmp_path):
        path = tmp_path / name
        if name == "w.tar":
            with tarfile.open(path, "w") as made:
                made.addfile(tarfile.TarInfo("x"))
        elif name == "w.bin":
            path.touch()
        else:
            with zipfile.ZipFile(path, "w") as made:
                made.writestr("a.txt", "hello")
        with pytest.raises(ModelError, match="not readable as PyTorch's tensors"):
            load_weights(Net(), path)

    def test_a_huge_header_of_safetensors(self, tmp_path):
        path = tmp_path / "w.safetensors"
        path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
        with pytest.raises(ModelError, match="not readable as safetensors"):
            load_weights(Net(), path)

    def test_what_is_no_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.pth")
        os.symlink("/dev/zero", tmp_path / "zero.pth")
        (tmp_path / "folder.pth").mkdir()
        for name, told in (
            ("pipe", "a device or a pipe"),
            ("zero", "a device or a pipe"),
            ("folder", "a folder"),
            ("none", "nothing of that name"),
        ):
            with pytest.raises(ModelError, match=rf"existing file, got .*{name}\.pth.*\({told}\)"):
                load_weights(Net(), tmp_path / f"{name}.pth")
