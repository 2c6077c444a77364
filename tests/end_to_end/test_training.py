"""Training: learning on real digits, determinism, divergence, caching, the command line."""

import math

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from workloads.models import CifarNet, load, read_metadata
from workloads.streams import ImageSet, digits
from workloads.training import TrainingError, cached, train_classifier, trained_cifarnet
from workloads.training.__main__ import app
from workloads.training.augment import augmented
from workloads.training.cached import seeded_cifarnet


@pytest.fixture(scope="module")
def small() -> tuple[ImageSet, ImageSet]:
    return digits("train").take(256), digits("test").take(64)


def tiny_model(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 8 * 8, classes))


class TestTrainClassifier:
    def test_one_epoch_of_cifarnet_learns(self):
        reports = []
        result = train_classifier(
            seeded_cifarnet(0),
            digits("train").take(640),
            digits("test"),
            epochs=1,
            batch_size=16,
            learning_rate=2e-3,
            progress=reports.append,
        )
        # Guessing among ten classes has a loss of ln 10 and an accuracy of 0.1, whose deviation
        # over 360 test images is sqrt(0.1 * 0.9 / 360) = 0.016: ten deviations above is no luck.
        assert result.epochs[0].loss < math.log(10)
        assert result.accuracy > 0.1 + 10 * 0.016
        assert tuple(reports) == result.epochs
        assert (reports[0].epoch, reports[0].epochs) == (1, 1)
        assert result.duration_s >= reports[0].duration_s > 0

    @pytest.mark.parametrize("optimizer", ["adam", "sgd"])
    @pytest.mark.parametrize("augment", ["none", "shift", "shift_flip"])
    def test_seed_decides_everything(self, small, optimizer, augment):
        train, test = small

        def trained(seed: int) -> list[torch.Tensor]:
            model = nn.Sequential(nn.Dropout(0.2), tiny_model())
            train_classifier(
                model, train, test, epochs=2, seed=seed, optimizer=optimizer, augment=augment
            )
            return [parameter.detach() for parameter in model.parameters()]

        first, again, other = trained(3), trained(3), trained(4)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))

    def test_pytorchs_random_state_is_left_alone(self, small):
        model = tiny_model()
        before = torch.random.get_rng_state()
        train_classifier(model, *small, epochs=1)
        seeded_cifarnet(5)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_linear_model_reaches_useful_accuracy_and_is_left_in_eval_mode(self, small):
        model = tiny_model()
        result = train_classifier(model, *small, epochs=20, learning_rate=1e-2, batch_size=32)
        assert result.accuracy > 0.8
        assert not model.training

    def test_divergent_loss_names_epoch_and_step(self, small):
        # A first step of size 1e30 puts the next logits beyond float32 (3.4e38).
        with pytest.raises(TrainingError, match=r"loss .* at epoch 1, step 2 .*use a lower"):
            train_classifier(
                seeded_cifarnet(0), *small, epochs=1, learning_rate=1e30, optimizer="sgd"
            )

    def test_last_step_cannot_hide_divergence(self, small):
        # One batch holds everything, so no later loss would tell; 1e38 * 10 * gradient overflows.
        model = tiny_model()
        train, test = small
        loud = ImageSet(
            images=1e3 * train.images, labels=train.labels, classes=train.classes, source="loud"
        )
        with pytest.raises(TrainingError, match=r"weights .* at epoch 1, step 1 "):
            train_classifier(
                model, loud, test, epochs=1, batch_size=256, learning_rate=1e38, optimizer="sgd"
            )

    def test_all_bad_arguments_come_together(self, small):
        train, test = small
        unlabelled = ImageSet(images=test.images, source="film")
        with pytest.raises(TrainingError) as caught:
            train_classifier(
                tiny_model(),
                train,
                unlabelled,
                epochs=0,
                batch_size=True,
                learning_rate=float("nan"),
                weight_decay=-1.0,
                optimizer="adamm",
                augment="blur",
            )
        for part in (
            "epochs must",
            "batch_size must",
            "learning_rate must",
            "weight_decay must",
            "test must have labels, and film has none",
            "train and test must have the same classes",
            "optimizer must be one of adam, sgd, got 'adamm'",
            "augment must be one of none, shift, shift_flip, got 'blur'",
        ):
            assert part in str(caught.value)

    def test_no_bar_without_a_terminal(self, small, capsys):
        train_classifier(tiny_model(), *small, epochs=1, progress=True)
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""


class TestAugmented:
    def test_shift_is_a_crop_of_the_padded_image(self):
        # One bright pixel in the middle of a dark image stays one pixel, at most 4 away.
        images = torch.zeros(50, 3, 16, 16)
        images[:, :, 8, 8] = 1
        shifted = augmented(images, "shift", torch.Generator().manual_seed(0))
        assert shifted.sum(dim=(1, 2, 3)).tolist() == [3.0] * 50
        rows, columns = shifted[:, 0].nonzero()[:, 1:].T
        for places in (rows, columns):
            assert set(places.tolist()) == set(range(4, 13))  # 8 - 4 .. 8 + 4

    def test_flip_mirrors_about_half(self):
        images = torch.zeros(400, 3, 4, 16)
        images[:, :, :, 8:] = 1
        flipped = augmented(images, "shift_flip", torch.Generator().manual_seed(0))
        # Shifts of at most 4 leave column 0 on its side: bright if mirrored.
        mirrored = flipped[:, 0, 0, 0].mean().item()
        # Binomial(400, 1/2): four deviations are 4 * sqrt(400)/2 / 400 = 0.1.
        assert 0.4 < mirrored < 0.6

    def test_none_changes_nothing(self):
        images = torch.randn(2, 3, 4, 4)
        assert augmented(images, "none", torch.Generator()) is images


@pytest.fixture
def quick_cache(monkeypatch, tmp_path, small):
    """The cached recipe on 64 digits for one epoch, in a folder of the test's own."""
    train, test = small[0].take(64), small[1]
    monkeypatch.setenv(cached.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cached, "DIGITS_EPOCHS", 1)
    monkeypatch.setattr(cached, "digits", lambda split: train if split == "train" else test)
    return tmp_path / "cache"


class TestTrainedCifarNet:
    def test_second_call_reads_the_cache(self, quick_cache, monkeypatch):
        model, accuracy = trained_cifarnet("digits")
        (file,) = quick_cache.iterdir()
        metadata = read_metadata(file)
        assert float(metadata["accuracy"]) == pytest.approx(accuracy, abs=1e-6)
        assert {"dataset", "epochs", "seed", "torch", "numpy", "python"} <= set(metadata)
        monkeypatch.setattr(cached, "train_classifier", None)  # must not be called again
        again, same = trained_cifarnet("digits")
        assert same == accuracy
        assert torch.equal(again.conv1.weight, model.conv1.weight)
        assert not again.training

    @pytest.mark.parametrize("damage", ["cut", "garbage", "other model", "other weights"])
    def test_damaged_cache_is_trained_anew(self, quick_cache, damage):
        _, accuracy = trained_cifarnet()
        (file,) = quick_cache.iterdir()
        match damage:
            case "cut":
                file.write_bytes(file.read_bytes()[:1000])
            case "garbage":
                file.write_bytes(b"\xff" * 500)
            case "other model":
                cached.save_weights(CifarNet(num_classes=3), file, metadata={"accuracy": "0.5"})
            case "other weights":
                cached.save_weights(CifarNet(), file, metadata={"accuracy": "0.99"})
        with pytest.warns(UserWarning, match="trained again"):
            _, again = trained_cifarnet()
        assert again == accuracy
        assert float(read_metadata(file)["accuracy"]) == pytest.approx(accuracy, abs=1e-6)

    def test_unwritable_cache_still_returns_the_model(self, quick_cache):
        quick_cache.write_text("a file where the folder should be")
        with pytest.warns(UserWarning, match="training will be repeated"):
            model, _ = trained_cifarnet()
        assert isinstance(model, CifarNet)

    def test_other_dataset(self):
        with pytest.raises(TrainingError, match=r"got 'cifar10'.*python -m workloads\.training"):
            trained_cifarnet("cifar10")

    def test_default_cache_is_the_users(self, monkeypatch):
        monkeypatch.delenv(cached.CACHE_VARIABLE, raising=False)
        assert cached.cache_dir().name == "similarity-codesign"


class TestCommandLine:
    def run(self, *arguments: str):
        return CliRunner().invoke(app, list(arguments))

    def test_digits(self, tmp_path):
        out = tmp_path / "w.safetensors"
        result = self.run(*f"--dataset digits --epochs 1 --limit 64 --seed 3 --out {out}".split())
        assert result.exit_code == 0, result.output
        metadata = read_metadata(out)
        assert f"test accuracy {float(metadata['accuracy']):.4f} on 360 images" in result.output
        assert (metadata["seed"], metadata["epochs"], metadata["train_images"]) == ("3", "1", "64")
        load("cifarnet", weights=out)

    def test_cifar10_from_a_binary_folder(self, tmp_path):
        record = bytes([1]) + bytes(range(256)) * 12
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            (tmp_path / f"{name}.bin").write_bytes(record * 2)
        out = tmp_path / "w.safetensors"
        result = self.run(*f"--dataset cifar10 --archive {tmp_path} --epochs 1 --out {out}".split())
        assert result.exit_code == 0, result.output
        assert read_metadata(out)["train_images"] == "10"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("--dataset cifar10 --out w.safetensors", "needs --archive PATH"),
            ("--dataset mnist --out w.safetensors", "digits or cifar10, got 'mnist'"),
            ("--dataset digits --out w.pt", "must end with .safetensors"),
            ("--dataset digits --archive x --out w.safetensors", "cifar10 only"),
            ("--dataset digits --epochs 0 --out w.safetensors", "epochs must"),
            ("--dataset cifar10 --archive none --out w.safetensors", "existing file or folder"),
        ],
    )
    def test_errors_are_one_clear_message(self, arguments, message):
        result = self.run(*arguments.split())
        assert result.exit_code == 1
        assert message in result.output
        assert "Traceback" not in result.output

    def test_unsplit_archive_needs_a_test_archive(self, tmp_path):
        (tmp_path / "cat").mkdir()
        (tmp_path / "cat" / "1.png").touch()
        result = self.run(*f"--dataset cifar10 --archive {tmp_path} --out w.safetensors".split())
        assert result.exit_code == 1
        assert "--test-archive PATH" in result.output
