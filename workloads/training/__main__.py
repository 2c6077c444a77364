"""Train CifarNet from the command line: `python -m workloads.training --help`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from workloads.models import ModelError, save_weights
from workloads.streams import ImageSet, StreamError, cifar10, digits
from workloads.streams.cifar_archive import holds_both_splits
from workloads.training.cached import seeded_cifarnet, training_metadata
from workloads.training.classifier import EpochReport, TrainingError, train_classifier

app = typer.Typer(add_completion=False)


@app.command()
def main(
    dataset: Annotated[str, typer.Option(help="digits or cifar10.")],
    out: Annotated[Path, typer.Option(help="Where to save the weights (.safetensors).")],
    archive: Annotated[
        Path | None, typer.Option(help="CIFAR-10 archive or folder; needed for cifar10.")
    ] = None,
    test_archive: Annotated[
        Path | None, typer.Option(help="Archive of the test images, if it is another one.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Of the first step.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty.")] = 0.0,
    optimizer: Annotated[str, typer.Option(help="adam or sgd.")] = "adam",
    augment: Annotated[
        str | None,
        typer.Option(
            help="none, shift or shift_flip. [default: shift for digits, shift_flip for cifar10]"
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use only this many training images.")] = None,
    seed: Annotated[int, typer.Option(help="Of initial weights and training.")] = 0,
) -> None:
    """Train CifarNet, print its test accuracy and save its weights as safetensors."""
    try:
        if out.suffix != ".safetensors":
            raise ModelError(f"--out must end with .safetensors, got {str(out)!r}")
        there = next(each for each in out.absolute().parents if each.exists())
        if out.is_dir() or not (there.is_dir() and os.access(there, os.W_OK)):  # before the work
            raise ModelError(
                f"--out must be a file in a folder that can be written, got {out}; give another "
                "path"
            )
        train, test = _datasets(dataset, archive, test_archive, limit)
        chosen = augment or ("shift_flip" if dataset == "cifar10" else "shift")
        model = seeded_cifarnet(seed, num_classes=len(train.classes))
        result = train_classifier(
            model,
            train,
            test,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            optimizer=optimizer,
            weight_decay=weight_decay,
            augment=chosen,
            seed=seed,
            progress=_print_epoch,
        )
        metadata = training_metadata(
            dataset,
            result,
            train_source=train.source,
            train_images=str(len(train)),
            test_source=test.source,
            test_images=str(len(test)),
            batch_size=str(batch_size),
            learning_rate=str(learning_rate),
            weight_decay=str(weight_decay),
            optimizer=optimizer,
            augment=chosen,
        )
        save_weights(model, out, metadata=metadata)
    except (ModelError, StreamError, TrainingError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"test accuracy {result.accuracy:.4f} on {len(test)} images; weights in {out}")


def _datasets(
    dataset: str, archive: Path | None, test_archive: Path | None, limit: int | None
) -> tuple[ImageSet, ImageSet]:
    match dataset:
        case "digits":
            if archive is not None or test_archive is not None:
                raise StreamError("--archive and --test-archive are for --dataset cifar10 only")
            train = digits("train")
            return (train if limit is None else train.take(limit)), digits("test")
        case "cifar10":
            if archive is None:
                raise StreamError("--dataset cifar10 needs --archive PATH; nothing is downloaded")
            if test_archive is None and not holds_both_splits(archive):
                raise StreamError(
                    f"{archive} doesn't tell training from test images; give the test images "
                    "with --test-archive PATH"
                )
            return cifar10(archive, "train", limit), cifar10(test_archive or archive, "test")
        case _:
            raise StreamError(f"--dataset must be digits or cifar10, got {dataset!r}")


def _print_epoch(report: EpochReport) -> None:
    typer.echo(
        f"epoch {report.epoch}/{report.epochs}: loss {report.loss:.4f}, "
        f"training accuracy {report.accuracy:.4f}, {report.duration_s:.1f} s",
        err=True,
    )


if __name__ == "__main__":
    app()
