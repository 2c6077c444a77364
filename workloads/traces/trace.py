"""A captured workload: its layers, how data flows between them, and their tensors on disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import networkx as nx
import numpy as np

from workloads.errors import TraceError, plain, show
from workloads.rules import instance_of, integer, problems, refuse, true_of, whole
from workloads.scratch import restore
from workloads.traces.after import Affine
from workloads.traces.files import (
    AFFINES,
    DESCRIPTION,
    INPUTS,
    Array,
    TraceFiles,
    TraceWriter,
    affine_names,
    check_destination,
    check_listed,
    edge_of,
    inputs_of,
    layer_file,
    publish,
    scratch_beside,
)
from workloads.traces.layer import Gemm, Layer
from workloads.traces.provenance import provenance_problems
from workloads.traces.scores import SCORES, ScoreFunction
from workloads.traces.unfold import rows_of, stored_shapes, weights_of
from workloads.writing import naming

_ARRAY = instance_of(np.ndarray, optional=True, fix="convert it")
_FIELDS = {
    "graph": instance_of(nx.DiGraph, fix="make one with networkx"),
    "images": integer(1, fix="give the number of inputs in the batch"),
    "inputs": true_of(
        lambda given: (
            given is None
            or (isinstance(given, tuple) and all(isinstance(each, np.ndarray) for each in given))
        ),
        "be of NumPy arrays",
        "convert them",
    ),
    "outputs": _ARRAY,
    "labels": _ARRAY,
    "files": instance_of(TraceFiles, optional=True, fix="use WorkloadTrace.load"),
}


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
            weights of each layer that has some; how its labels judge answers; which of several
            outputs is judged (`workloads.traces.judged`); how the model was called, where that was
            with more than tensors.
        inputs: what the model was called with, or None.
        outputs: the model's judged output, or None.
        labels: `(images,)` expected classes, one for each answer of several an image, such as
            `(images, height, width)` of pixels, what a score function takes, or None.
        files: where the tensors are, or None for a trace without data.
        score_function: computes the score, where a user's own does; never saved.
    """

    layers: tuple[Layer, ...]
    graph: nx.DiGraph[str]
    images: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Array, ...] | None = None
    outputs: Array | None = None
    labels: Array | None = None
    files: TraceFiles | None = None
    score_function: ScoreFunction | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", _layers(self.layers))
        if self.inputs is not None and isinstance(self.inputs, list):
            object.__setattr__(self, "inputs", tuple(self.inputs))
        found = self._field_problems() or (self._graph_problems() + self._batch_problems())
        refuse([f"WorkloadTrace.{each}" for each in found], TraceError)
        object.__setattr__(self, "images", whole(self.images, 1))

    def _field_problems(self) -> list[str]:
        """Rules that a field breaks on its own."""
        return provenance_problems(self.provenance) + problems("", vars(self), _FIELDS)

    def _graph_problems(self) -> list[str]:
        """Whether the graph is of the layers."""
        names = [layer.name for layer in self.layers]
        position = {name: i for i, name in enumerate(names)}
        wrong = [
            edge
            for edge in self.graph.edges
            if position.get(edge[0], len(names)) >= position.get(edge[1], -1)
        ]
        other = [*(set(self.graph.nodes) ^ set(names))]
        if not other and not wrong:
            return []
        return [
            f"graph must join the layers in the order of their calls, got edges {show(wrong)} and "
            f"nodes {show(other)} that don't; use the layers' names"
        ]

    def _batch_problems(self) -> list[str]:
        """Whether everything is of the same batch."""
        images = whole(self.images, 1)
        found = [
            f"images={images} must be that of every layer, got {layer.images} in layer "
            f"{layer.name!r}; capture the model again"
            for layer in self.layers
            if layer.images != images
        ][:1]
        labels = self.labels
        of_batch = labels is None or self.score not in SCORES or images in labels.shape
        if labels is not None and (labels.dtype.kind not in "biuf" or not of_batch):
            found.append(
                f"labels must be {images} numbers, one per image, or several for each, got shape "
                f"{labels.shape} of {labels.dtype}; give the labels of this batch"
            )
        dtypes = self.provenance.get("input_dtypes")
        if dtypes and self.inputs is not None and len(dtypes) != len(self.inputs):
            found.append(
                f"provenance.input_dtypes must be of the {len(self.inputs)} inputs, got "
                f"{show(dtypes)}; name the type of each"
            )
        return found

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
        """How `labels` judge answers, a key of `scores.SCORES` or a function's name."""
        return str(self.provenance.get("score", "accuracy"))

    def with_score(self, function: ScoreFunction, name: str) -> Self:
        """The trace judged by a function, as `capture` takes one.

        Args:
            function: of the judged output and the labels to a number of 0 to 1.
            name: of the function, for reports.
        """
        return replace(self, provenance={**self.provenance, "score": name}, score_function=function)

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
            TraceError: if there is no such layer, it has no data, its file is damaged, or memory is
                too small for the rows.
        """
        layer, tensors = self._stored(name)
        try:
            return rows_of(layer, tensors["input"], order=order)
        except MemoryError as error:
            raise TraceError(
                f"WorkloadTrace layer {name!r} must be unfolded in memory, got too little for "
                f"{layer.gemm} and its padding; capture fewer images"
            ) from error

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

    def affine(self, name: str) -> Affine | None:
        """What a layer's result is scaled and shifted by, column by column, before anything else.

        Returns:
            Bias and batch normalisation, folded, in the model's numbers; `None` where the result
            goes another way first, or nobody knows. It gives the value `Layer.after.folded`.

        Raises:
            TraceError: there is no such layer, or the trace's file is damaged.
        """
        index = self._index(name)
        if self.files is None or AFFINES not in self.files:
            return None
        tensors = self.files.read(AFFINES)
        found = [tensors.get(each) for each in affine_names(index)]
        gemm = self.layers[index].gemm
        if any(each is None for each in found):
            return None
        if any(each is not None and each.shape != (gemm.count, gemm.n) for each in found):
            raise TraceError(
                f"{self.files.directory / AFFINES} must hold (count, n) = "
                f"({gemm.count}, {gemm.n}) numbers for layer {name!r}, got "
                f"{[each.shape for each in found if each is not None]}; capture the trace again"
            )
        scale, shift = (np.asarray(each) for each in found)
        return Affine(scale=scale, shift=shift)

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
        path = _path(path)
        check_destination(path, overwrite=overwrite)
        scratch = scratch_beside(path)
        try:
            directory = scratch.path / "trace"
            with naming(path, directory):
                directory.mkdir()
            writer = TraceWriter(directory, shown=path)
            for layer in self.layers if self._has_tensors else ():
                _, tensors = self._stored(layer.name)
                writer.add(layer, stored_input=tensors["input"], stored_weight=tensors["weight"])
            writer.add_inputs(self.inputs, self.outputs, self.labels)
            affines = {i: self.affine(layer.name) for i, layer in enumerate(self.layers)}
            writer.add_affines({i: each for i, each in affines.items() if each is not None})
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
        path = _path(path)
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
            graph = _graph(layers, [edge_of(edge) for edge in description["edges"]])
            tensors = files.read(INPUTS) if INPUTS in files else {}
            trace = cls(
                layers=layers,
                graph=graph,
                images=description["images"],
                provenance=description["provenance"],
                inputs=inputs_of(tensors),
                outputs=tensors.get("outputs"),
                labels=tensors.get("labels"),
                files=files,
            )
            check_listed(description["files"], len(layers))
            return trace
        except TraceError as error:
            if str(files.directory) in str(error):
                raise
            raise TraceError(
                f"{path}: {error}\nrestore the file or capture the trace again"
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
            for name, gemm in _named_gemms(gemms)
        )
        names = [layer.name for layer in layers]
        graph = _graph(layers, list(pairwise(names)))
        return cls(layers=layers, graph=graph, images=1, provenance={"model": "shapes alone"})

    def _index(self, name: str) -> int:
        for index, layer in enumerate(self.layers):
            if isinstance(name, str) and layer.name == name:
                return index
        known = ", ".join(layer.name for layer in self.layers)
        raise TraceError(f"WorkloadTrace has no layer {show(name)}; use one of {known}")

    @property
    def _has_tensors(self) -> bool:
        return self.files is not None and layer_file(0) in self.files

    def _stored(self, name: str) -> tuple[Layer, dict[str, Array]]:
        index = self._index(name)
        layer, file = self.layers[index], layer_file(index)
        if self.files is None or file not in self.files:
            raise TraceError(
                f"WorkloadTrace layer {name!r} must have tensors to be read, got shapes alone; "
                "capture the model, or use a policy that needs no data"
            )
        tensors = self.files.read(file, keep=True)
        expected = stored_shapes(layer)
        found = {key: tensor.shape for key, tensor in tensors.items()}
        if found != expected:
            raise TraceError(
                f"{self.files.directory / file} must hold {expected} for layer {name!r}, got "
                f"{found}; capture the trace again"
            )
        return layer, tensors


def _path(path: object) -> Path:
    if isinstance(path, str | os.PathLike):
        return Path(path)
    raise TraceError(
        f"WorkloadTrace must be saved in a directory, got {show(path)}; give its path as a text"
    )


def _layers(layers: object) -> tuple[Layer, ...]:
    """Layers with names of their own."""
    listed = tuple(layers) if isinstance(layers, tuple | list) else None
    if listed is None or not all(isinstance(layer, Layer) for layer in listed):
        raise TraceError(
            f"WorkloadTrace.layers must be a tuple of Layer, got {show(layers)}; capture a model, "
            "or use WorkloadTrace.from_gemms"
        )
    if not listed:
        raise TraceError(
            "WorkloadTrace.layers must hold a layer, got none; use a model with a convolution, "
            "a linear layer or a matrix product"
        )
    counts = Counter(layer.name for layer in listed)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise TraceError(
            f"WorkloadTrace.layers must have different names, got {', '.join(twice)} several "
            "times; number further calls as in conv1#2"
        )
    return listed


def _named_gemms(gemms: Any) -> list[tuple[str, Gemm]]:
    """Pairs of a name and a product; what is wrong with a name is told by `Layer`."""
    try:
        pairs: list[Any] = list(gemms)
    except Exception:  # what a user's own class raises is no sequence of pairs either
        pairs = [gemms]
    for pair in pairs:
        named = isinstance(pair, tuple | list) and len(pair) == 2
        if not named or not isinstance(pair[1], Gemm):
            raise TraceError(
                f"WorkloadTrace.from_gemms must get pairs of a name and a Gemm, got {show(pair)}; "
                "give [('fc', Gemm(m=1, n=10, k=64))]"
            )
    return pairs


def not_counted_line(provenance: Mapping[str, Any]) -> str:
    """Operations of the model that may hide products which a trace lacks; empty if none does."""
    left_out = provenance.get("not_counted")
    if not isinstance(left_out, Mapping) or not left_out:
        return ""
    told = [
        f"{plain(str(name), 100)} ({'1 call' if calls == 1 else f'{calls} calls'})"
        for name, calls in left_out.items()
    ]
    return f"Not counted: {', '.join(told)}."


def _graph(layers: Sequence[Layer], edges: Sequence[tuple[str, str]]) -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(layer.name for layer in layers)
    graph.add_edges_from(edges)
    return graph
