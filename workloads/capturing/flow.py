"""Where a tensor's values come from, while a model runs.

Views and in-place writes share memory, so what is known is kept per storage:

- the layers whose results reached it (the edges of a workload's graph);
- whether it depends on the model's inputs (active), or on parameters alone (resident). Neither is
  certain of what was made from nothing, or outside PyTorch;
- how memory is cut into images: the element at offset `a` belongs to image
  `a // image_stride % images`, so the image of every row of every view follows from its strides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known of one storage."""

    sources: frozenset[str] = frozenset()
    active: bool = False
    resident: bool = False
    image_stride: int | None = None
    owners: tuple[str, ...] = ()


_UNKNOWN = Origin()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


class Flow:
    """Follows values from the model's inputs through every operation.

    Args:
        images: inputs in the batch.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        # By the address of a storage, which its weak reference keeps from being given to another.
        self._origins: dict[int, tuple[StorageWeakRef, Origin]] = {}

    def origin(self, tensor: Tensor) -> Origin:
        """What is known of the tensor's storage."""
        if tensor.layout != torch.strided:
            return _UNKNOWN
        found = self._origins.get(tensor.untyped_storage()._cdata)
        return _UNKNOWN if found is None else found[1]

    def add_input(self, tensor: Tensor, dimension: int = 0) -> None:
        """Declare an input of the model, and where its images lie.

        Args:
            tensor: the input.
            dimension: holds the images, if it is as long; else the first or second that is, else
                the first if it holds as many entries of each image.
        """
        if tensor.layout != torch.strided:
            return
        stride = None
        if self.images > 1 and tensor.ndim > 0:
            sizes = tensor.shape[:2]
            places = [dimension, *range(len(sizes))]
            along = [i for i in places if i < len(sizes) and sizes[i] == self.images]
            if along:
                stride = tensor.stride(along[0])
            elif sizes[0] % self.images == 0:
                stride = tensor.stride(0) * (sizes[0] // self.images)
        self._put(tensor, Origin(active=True, image_stride=stride or None))

    def add_parameter(self, tensor: Tensor, owner: str) -> None:
        """Declare a parameter or buffer of the module at path `owner`."""
        if tensor.layout != torch.strided:
            return
        owners = self.origin(tensor).owners
        self._put(tensor, Origin(resident=True, owners=(*owners, owner)))

    def image_axis(self, tensor: Tensor) -> tuple[int, int] | None:
        """Where the images are in a tensor.

        Returns:
            `(dimension, inner)`: along `dimension`, entry `i` belongs to image
            `i // inner % images`. None if unknown.
        """
        stride = self.origin(tensor).image_stride
        if stride is None or tensor.is_nested:
            return None
        for dimension, (size, step) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            if size > 1 and 0 < step <= stride and size * step > stride and stride % step == 0:
                inner = stride // step
                return (dimension, inner) if size % (inner * self.images) == 0 else None
        return None

    def follow(self, func: Any, given: Iterable[Tensor], made: Any) -> None:
        """Pass on what is known through one operation.

        Args:
            func: the operation.
            given: tensors that it read.
            made: its result.
        """
        given = list(given)
        origins = [self.origin(tensor) for tensor in given]
        random = torch.Tag.nondeterministic_seeded in func.tags
        active = random or any(origin.active for origin in origins)
        sources = frozenset().union(*(origin.sources for origin in origins))
        if active or sources:
            self.mark(tensors_in(made), given, sources=sources, active=active)
        elif origins and all(origin.resident for origin in origins):
            for tensor in tensors_in(made):
                if tensor.layout == torch.strided and self.origin(tensor) is _UNKNOWN:
                    self._put(tensor, Origin(resident=True))

    def mark(
        self,
        made: Iterable[Tensor],
        given: Iterable[Tensor],
        *,
        sources: frozenset[str],
        active: bool,
    ) -> None:
        """Record the origin of tensors that were written; views of what was read are left."""
        given = list(given)
        for tensor in made:
            if tensor.layout != torch.strided:
                continue
            known = self.origin(tensor)
            stride = known.image_stride
            if stride is None and self.images > 1:
                stride = self._image_stride(tensor, given)
            self._put(
                tensor,
                Origin(
                    sources=known.sources | sources,
                    active=known.active or active,
                    image_stride=stride,
                    owners=known.owners,
                ),
            )

    def _image_stride(self, made: Tensor, given: list[Tensor]) -> int | None:
        """Image stride of a new storage, from the tensors it was computed from."""
        if made.is_nested:
            return None
        for tensor in given:
            axis = self.image_axis(tensor)
            if axis is None:
                continue
            dimension, inner = axis
            same = tensor.ndim == made.ndim and tensor.shape[dimension] == made.shape[dimension]
            if same and made.stride(dimension) > 0:
                return inner * made.stride(dimension)
        for size, stride in zip(made.shape, made.stride(), strict=True):
            if size == self.images and stride > 0:
                return stride
        return None

    def _put(self, tensor: Tensor, origin: Origin) -> None:
        storage = tensor.untyped_storage()
        known = self._origins.get(storage._cdata)
        held = StorageWeakRef(storage) if known is None else known[0]
        self._origins[storage._cdata] = held, origin
