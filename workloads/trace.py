"""A captured workload: its layers, how data flows between them, and their tensors on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import networkx as nx

from workloads.errors import TraceError
from workloads.files import (
    DESCRIPTION,
    INPUTS,
    Array,
    TraceFiles,
    TraceWriter,
    check_destination,
    layer_file,
    publish,
)
from workloads.gemm import Gemm, Layer
from workloads.scratch import Scratch, restore
from workloads.unfold import rows_of, weights_of


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class WorkloadTrace:
    """Every matrix product of one run of a model.

    Tensors stay on disk as feature maps and are read, and unfolded, one layer at a time.

    Attributes:
        layers: in the order of their calls, which is a topological order of `graph`.
        graph: layer names; an edge says that a layer's result reaches another layer through
            anything but a layer.
        images: inputs in the batch, at least 1.
        provenance: where the trace comes from: model, input source, seed, versions, creation time;
            what its layers compute in ("int8", "float32" or both); the fraction of 0 among the
            weights of each layer that has some; how its labels judge answers.
        inputs: what the model was called with, or None.
        outputs: the model's result (the first tensor of several), or None.
        labels: `(images,)` expected classes, `(images, height, width)` of pixels, or None.
        files: where the tensors are, or None for a trace without data.
    """

    layers: tuple[Layer, ...]
    graph: nx.DiGraph[str]
    images: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Array, ...] | None = None
    outputs: Array | None = None
    labels: Array | None = None
    files: TraceFiles | None = None

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if not names:
            raise TraceError(
                "WorkloadTrace.layers must hold a layer, got none; use a model with a convolution, "
                "a linear layer or a matrix product"
            )
        position = {name: i for i, name in enumerate(names)}
        if len(position) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise TraceError(
                f"WorkloadTrace.layers must have different names, got {', '.join(twice)} several "
                "times; number further calls as in conv1#2"
            )
        wrong = [
            edge
            for edge in self.graph.edges
            if position.get(edge[0], len(names)) >= position.get(edge[1], -1)
        ]
        if set(self.graph.nodes) != set(names) or wrong:
            raise TraceError(
                f"WorkloadTrace.graph must join the layers in the order of their calls, got edges "
                f"{wrong} and nodes {sorted(set(self.graph.nodes) ^ set(names))} that don't; "
                "use the layers' names"
            )

    def __repr__(self) -> str:
        return (
            f"WorkloadTrace({len(self.layers)} layers, {self.images} images, "
            f"{self.macs / 1e9:.3g} G MACs)"
        )

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.gemm.macs for layer in self.layers)

    @property
    def score(self) -> str:
        """How `labels` judge answers, a key of `workloads.scores.SCORES`."""
        return str(self.provenance.get("score", "accuracy"))

    def layer(self, name: str) -> Layer:
        """Return the layer called `name`.

        Raises:
            TraceError: if there is none.
        """
        return self.layers[self._index(name)]

    def rows(self, name: str, *, order: str = "channels_first") -> Array:
        """Activations of a layer as rows of its matrix product, unfolded now.

        Args:
            name: layer name.
            order: order of a convolution's row: `channels_first` is (c, kh, kw), `channels_last`
                is (kh, kw, c).

        Returns:
            `(count, m, k)` float32, k-major: a transposed view of a C-contiguous `(count, k, m)`
            array. It may be read-only.

        Raises:
            TraceError: if there is no such layer, it has no data, or its file is damaged.
        """
        layer, tensors = self._stored(name)
        return rows_of(layer, tensors["input"], order=order)

    def given(self, name: str) -> Array:
        """The layer's float32 input before unfolding.

        Returns:
            `(images, channels, *size)` of a convolution, `(count, m, k)` else. It may be read-only.

        Raises:
            TraceError: as `rows`.
        """
        _, tensors = self._stored(name)
        return tensors["input"]

    def weights(self, name: str, *, order: str = "channels_first") -> Array:
        """Weights of a layer, `(count, k, n)` float32, to go with `rows` in the same `order`.

        Raises:
            TraceError: as `rows` does.
        """
        layer, tensors = self._stored(name)
        return weights_of(layer, tensors["weight"], order=order)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the trace as a directory, whole or not at all.

        Args:
            path: must not exist, or be empty; with `overwrite` it may be a trace.
            overwrite: replace the trace at `path`.

        Returns:
            `path`.

        Raises:
            TraceError: if something else is at `path`, or this trace's own files are damaged.
        """
        path = Path(path)
        check_destination(path, overwrite=overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Scratch.beside(path)
        try:
            directory = scratch.path / "trace"
            directory.mkdir()
            if self.files is not None:
                self.files.copy_to(directory)
            else:
                writer = TraceWriter(directory)
                writer.add_inputs(self.inputs, self.outputs, self.labels)
                writer.finish(
                    self.graph.edges,
                    images=self.images,
                    provenance=self.provenance,
                    layers=self.layers,
                )
            publish(directory, path)
        finally:
            scratch.remove()
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a saved trace; tensors of layers are read when asked for.

        Args:
            path: the directory, or the `trace.json` in it.

        Raises:
            TraceError: if it is missing, damaged, or of another format version.
        """
        path = Path(path)
        if path.name == DESCRIPTION:
            path = path.parent
        restore(path)
        return cls.from_files(TraceFiles(path))

    @classmethod
    def from_files(cls, files: TraceFiles) -> Self:
        """Read the trace that `files` describe."""
        path, description = files.directory / DESCRIPTION, files.description
        try:
            layers = tuple(Layer.from_dict(layer) for layer in description["layers"])
            graph = _graph(layers, [(str(tail), str(head)) for tail, head in description["edges"]])
            tensors = files.read(INPUTS) if INPUTS in files else {}
            inputs = tuple(tensors[key] for key in sorted(tensors, key=_number) if "." in key)
            return cls(
                layers=layers,
                graph=graph,
                images=description["images"],
                provenance=description["provenance"],
                inputs=inputs or None,
                outputs=tensors.get("outputs"),
                labels=tensors.get("labels"),
                files=files,
            )
        except TraceError as error:
            if str(files.directory) in str(error):
                raise
            raise TraceError(f"{path}: {error}") from error
        except (TypeError, ValueError) as error:
            raise TraceError(
                f"{path} must describe a trace, got {error}; restore the file or capture the trace "
                "again"
            ) from error

    @classmethod
    def from_gemms(cls, gemms: Iterable[tuple[str, Gemm]]) -> Self:
        """Make a trace of shapes alone, each layer fed by the one before it.

        Args:
            gemms: name and product of each layer.

        Returns:
            A trace whose `rows` and `weights` raise `TraceError`. Products of `count` 1 are taken
            for linear layers, others for batched products of activations.
        """
        layers = tuple(
            Layer(
                name=name,
                kind="linear" if gemm.count == 1 else "batched_matmul",
                gemm=gemm,
                images=1,
                row_images=1,
                input_shape=(gemm.count, gemm.m, gemm.k)[gemm.count == 1 :],
                output_shape=(gemm.count, gemm.m, gemm.n)[gemm.count == 1 :],
                weights_are_parameters=gemm.count == 1,
            )
            for name, gemm in gemms
        )
        names = [layer.name for layer in layers]
        graph = _graph(layers, list(pairwise(names)))
        return cls(layers=layers, graph=graph, images=1, provenance={"model": "shapes alone"})

    def _index(self, name: str) -> int:
        for index, layer in enumerate(self.layers):
            if layer.name == name:
                return index
        known = ", ".join(layer.name for layer in self.layers)
        raise TraceError(f"WorkloadTrace has no layer {name!r}; use one of {known}")

    def _stored(self, name: str) -> tuple[Layer, dict[str, Array]]:
        index = self._index(name)
        layer, file = self.layers[index], layer_file(index)
        if self.files is None or file not in self.files:
            raise TraceError(
                f"WorkloadTrace layer {name!r} must have tensors to be read, got shapes alone; "
                "capture the model, or use a policy that needs no data"
            )
        tensors = self.files.read(file, keep=True)
        expected = _stored_shapes(layer)
        found = {key: tensor.shape for key, tensor in tensors.items()}
        if found != expected:
            raise TraceError(
                f"{self.files.directory / file} must hold {expected} for layer {name!r}, got "
                f"{found}; capture the trace again"
            )
        return layer, tensors


def _number(key: str) -> int:
    number = key.rpartition(".")[2]
    return int(number) if number.isdecimal() else -1


def _graph(layers: Sequence[Layer], edges: Sequence[tuple[str, str]]) -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(layer.name for layer in layers)
    graph.add_edges_from(edges)
    return graph


def _stored_shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that a layer's file holds."""
    gemm = layer.gemm
    if layer.convolution is None:
        return {"input": (gemm.count, gemm.m, gemm.k), "weight": (gemm.count, gemm.k, gemm.n)}
    groups, kernel = layer.convolution.groups, layer.convolution.kernel
    given, made = layer.input_shape[1], layer.output_shape[1]
    if layer.kind == "conv":
        weight = (made, given // groups, *kernel)
    else:
        weight = (given, made // groups, *kernel)
    return {"input": layer.input_shape, "weight": weight}
