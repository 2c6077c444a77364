"""How many images a model was given, and along which dimension they lie.

The first dimension of the inputs is taken for the images until the run says otherwise: PyTorch adds
the batch to an unbatched picture before it convolves, and recurrent layers and attention know where
their batch is. What contradicts is corrected where there is one explanation, and refused elsewhere:
every figure per image hangs on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.utils.rnn import PackedSequence

from workloads.capturing.flow import Flow, tensors_in
from workloads.errors import TraceError
from workloads.rules import integer, problems, refuse

_ADVICE = "pass images=N, the number of images in this batch"


class ImageCount:
    """Context in which the number of images is checked against what the model does.

    Args:
        args: positional arguments of the model.
        kwargs: named ones.
        images: as the user says, or None.
        certain: refuse inputs that disagree, where no layer tells which of them counts.

    Attributes:
        images: inputs in the batch, at least 1.
        flow: follows the values; told where the images lie.

    Raises:
        TraceError: if there is no tensor, or an empty one, or `images` is no count of anything.
    """

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        images: Any,
        *,
        certain: bool = False,
    ) -> None:
        found = _found(args, kwargs)
        self._main, self._pictures = found.main, found.pictures
        self._given = images is not None
        self._doubt = None if self._given else found.doubt
        self._settled = self._asked = False
        self._certain = certain
        if self._given:
            _check_given(images, found)
        self.images: int = images if self._given else found.images
        self.flow = Flow(self.images)
        self._inputs = list(tensors_in([args, kwargs]))
        self._place(0)
        self._handle: Any = None

    def __enter__(self) -> Self:
        self._handle = register_module_forward_pre_hook(self._before)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handle.remove()

    def asked(self) -> None:
        """A product is about to be asked about: from now on the number stands.

        Raises:
            TraceError: inputs disagree, and nothing has told which of them counts.
        """
        if self._doubt is not None and self._certain:
            raise TraceError(f"{self._doubt}; {_ADVICE}")
        self._asked = True

    def convolved(self, name: str, given: Tensor) -> None:
        """The input of a convolution, whose first dimension is a batch for sure."""
        if self._settled:
            return
        batch, images = given.shape[0], self.images
        alone = batch == 1 and self._main.ndim < given.ndim
        # Convolutions with weights for each image fold the images into the channels.
        folded = batch == 1 and self._main.ndim == given.ndim and given.shape[1] % images == 0
        each_alone = alone and self._pictures
        if self._doubt is None and (batch % images == 0 or folded or each_alone):
            self._settled = True
        elif alone and self._corrects():
            self._settle(1, None)
        elif self._doubt is not None and any(len_of(x) == batch for x in self._inputs):
            self._settle(batch, 0)
        else:
            self._refuse(f"convolution {name!r} saw a batch of {batch}")

    def multiplied(self, name: str, rows: Tensor) -> None:
        """The activations of a product with weights, `(count, m, k)`.

        One vector alone is one image: a product that sums over its images has none.
        """
        if self._settled or self._main.ndim > 1 or self.images == 1:
            return
        axis = self.flow.image_axis(rows)
        if axis is None or axis[0] < 2:
            return
        if self._corrects():
            self._settle(1, None)
        else:
            self._refuse(f"{name} multiplies it as one row")

    def attended(self, name: str, left: Tensor, right: Tensor) -> None:
        """Both operands of attention's scores, `(count, m, k)` and `(count, k, n)`.

        Rows of one image attend to each other, never to those of another.
        """
        if self._settled or self._given or self.images == 1:
            return
        across = self.flow.image_axis(left), self.flow.image_axis(right)
        if across == ((1, 1), (2, 1)) and left.shape[0] % self.images:
            self._refuse(f"{name} lets its rows attend to each other along that dimension")

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A layer that knows where its batch is."""
        if self._settled or not inputs:
            return
        if isinstance(inputs[0], PackedSequence) and isinstance(module, nn.RNNBase):
            self._check(module, int(inputs[0].batch_sizes[0]), None, None)
            return
        x = inputs[0]
        if not isinstance(x, Tensor) or x.layout != torch.strided or x.is_nested:
            return
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            if x.ndim == 3:
                dimension = 0 if module.batch_first else 1
                self._check(module, x.shape[dimension], dimension, x)
            elif x.ndim == 2:
                self._check(module, 1, None, x)
        elif isinstance(module, nn.RNNCellBase):
            if x.ndim == 2:
                self._check(module, x.shape[0], 0, x)
            elif x.ndim == 1:
                self._check(module, 1, None, x)

    def _check(
        self, module: nn.Module, batch: int, dimension: int | None, x: Tensor | None
    ) -> None:
        """A layer's batch, along `dimension` of its input `x`, against the number of images."""
        images, main = self.images, self._main
        axis = None if x is None else self.flow.image_axis(x)
        along = axis is None or axis[0] == dimension or images == 1
        step = x is not None and isinstance(module, nn.RNNCellBase)
        # The layer's input has the leading dimensions of the model's own: nothing was moved.
        direct = x is not None and any(x.shape[:-1] == y.shape[: x.ndim - 1] for y in self._inputs)
        # One step of a sequence that lies along the first dimension.
        sliced = step and axis is None and main.ndim > 1 and main.shape[1] == batch
        place = 1 if sliced and not direct else dimension
        if self._doubt is None and batch % images == 0 and along:
            self._settled = True
        elif self._given and batch % images == 0:
            self._settled = True
            if direct and dimension is not None:
                self._place(dimension)
        elif (direct or sliced) and self._corrects():
            self._settle(batch, place)
        else:
            where = "no batch" if dimension is None and x is not None else f"a batch of {batch}"
            self._refuse(f"{type(module).__name__} saw {where}")

    def _corrects(self) -> bool:
        """Whether the number may still change: nobody gave it, and no product has it yet."""
        return not self._given and not self._asked

    def _settle(self, images: int, dimension: int | None) -> None:
        self.images = self.flow.images = images
        self._settled, self._doubt = True, None
        self._place(dimension or 0)

    def _place(self, dimension: int) -> None:
        for tensor in self._inputs:
            self.flow.add_input(tensor, dimension)

    def _refuse(self, saw: str) -> None:
        if self._given:
            raise TraceError(
                f"images must be the number of images in inputs of shape {_shape(self._main)}, got "
                f"{self.images}, but {saw}; give that number, leave images out, or capture the "
                "trace again"
            )
        raise TraceError(
            f"inputs of shape {_shape(self._main)} must hold images along the first dimension, got "
            f"{self.images} along it, but {saw}; {_ADVICE}, or give the batch as the first "
            "dimension"
        )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What the inputs alone say.

    Attributes:
        images: how many they are, most likely.
        main: a tensor that holds images.
        sizes: what the number of images divides, if a user gives it.
        pictures: whether the images are the entries of a list.
        doubt: why `images` may be wrong, if it may.
    """

    images: int
    main: Tensor
    sizes: tuple[int, ...]
    pictures: bool = False
    doubt: str | None = None


def _found(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Found:
    named = [(f"inputs[{i}]", value) for i, value in enumerate(args)]
    named += [(f"inputs[{name!r}]", value) for name, value in kwargs.items()]
    tensors = [(name, tensor) for name, value in named for tensor in tensors_in(value)]
    if not tensors:
        raise TraceError(
            "run_with.inputs must hold a tensor, got none; pass what the model is called with"
        )
    first = tensors[0][1]
    if any(x.numel() == 0 for _, x in tensors[:1]):
        raise TraceError(
            f"run_with.inputs must hold at least one input, got shape {_shape(first)}; "
            "pass a batch that isn't empty"
        )
    for _, value in named:
        pictures = _pictures(value)
        if pictures:
            count = len(pictures)
            return _Found(images=count, main=pictures[0], sizes=(count,), pictures=True)
    kept = list(_telling(tensors))
    counts = Counter(len_of(x) for _, x in kept)
    images = counts.most_common(1)[0][0]
    main = next(x for _, x in kept if len_of(x) == images)
    doubt = None
    if len(counts) > 1:
        sizes = ", ".join(f"{name} of shape {_shape(x)}" for name, x in kept)
        doubt = (
            "inputs must agree on how many images lie along their first dimension, got "
            f"{' and '.join(map(str, counts))}: {sizes}"
        )
    lengths = [len(value) for _, value in named if isinstance(value, list | tuple)]
    places = (*lengths, *(size for _, x in kept for size in _places(x)))
    return _Found(images=images, main=main, sizes=places, doubt=doubt)


def _places(tensor: Tensor) -> tuple[int, ...]:
    """Sizes of the dimensions that may hold images: not the features of a row."""
    sizes = [tensor.size(i) for i in range(min(2, tensor.ndim))]
    return tuple(sizes[:1] if tensor.ndim == 2 and tensor.is_floating_point() else sizes)


def _pictures(value: Any) -> list[Tensor]:
    """The images of a list of them, as detectors take it: `(channels, height, width)` each."""
    if not isinstance(value, list | tuple) or not value:
        return []
    if all(isinstance(entry, Mapping) for entry in value):
        value = [next(tensors_in(dict(entry)), None) for entry in value]
    flat = [entry for entry in value if isinstance(entry, Tensor)]
    return flat if len(flat) == len(value) and all(x.ndim == 3 for x in flat) else []


def _telling(tensors: list[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Tensors whose first dimension tells of images.

    Scalars, positions and what is broadcast do not, nor do masks of a sequence's positions, where
    there is anything else.
    """
    filters = (
        lambda x: x.ndim > 0,
        lambda x: x.ndim > 1,
        lambda x: not (x.ndim == 2 and len_of(x) == x.size(1)),
        lambda x: len_of(x) != 1,
    )
    for holds in filters:
        tensors = [each for each in tensors if holds(each[1])] or tensors
    yield from tensors


_IMAGES = integer(1, fix=f"{_ADVICE}, or leave it out")


def _check_given(images: Any, found: _Found) -> None:
    refuse(problems("", {"images": images}, {"images": _IMAGES}), TraceError)
    if images > 1 and all(size % images for size in found.sizes):
        raise TraceError(
            "images must be the number of images in inputs of shape "
            f"{_shape(found.main)}, got {images}, which divides no number of entries in them; give "
            "that number, or leave images out"
        )


def len_of(tensor: Tensor) -> int:
    """Entries along the first dimension; 1 of a scalar."""
    return tensor.size(0) if tensor.ndim else 1


def _shape(tensor: Tensor) -> tuple[int, ...] | None:
    """None of a nested tensor, which has none."""
    return None if tensor.is_nested else tuple(tensor.shape)
