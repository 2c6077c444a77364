"""What policies have in common that cluster within tiles and may look at a pixel once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators.rules import Relation, flag, integer, one_of, optional
from simulator.decisions.looks import Looks
from simulator.policies.looking import TILE_SHAPES, Tile, is_looked_at_once, looks_of
from simulator.policies.sub_vectors import SCOPES, SubVectorPolicy
from workloads.traces.layer import Layer


def _tiles_have_rows(policy: "TiledPolicy") -> list[str]:
    """Tiles and no other scope have a height."""
    if (policy.scope == "tile") == (policy.tile_rows is not None):
        return []
    if policy.scope == "tile":
        return ["tile_rows must be given with scope='tile', got None; try 128"]
    return [
        f"tile_rows must be None with scope={policy.scope!r}, got {policy.tile_rows}; use "
        "scope='tile'"
    ]


@dataclass(frozen=True, kw_only=True)
class TiledPolicy(SubVectorPolicy):
    """Clusters sub-vectors within images, batches or tiles, and looks once a tap or once a pixel.

    Attributes:
        scope: also `tile`: clusters live within a tile of an image's rows, so that sums, results
            and ids of a tile stay on the chip; its table is cleared for the next one.
        tile_rows: rows of a tile at most, with scope `tile`; an image is cut into equal tiles.
        tile_shape: `strip`, consecutive rows, or `block`, a square of a convolution's positions.
        look_once: whether a convolution's input pixel is looked at once and all taps of the kernel
            that meet it share what was found, in place of once for each tap. Rows are then cut in
            the order (kh, kw, c), whatever `order` says, and L is at most the channels that a tap
            meets: a pixel's vectors are of L channels, the last one of the rest. See `looks_of`.
    """

    scope: str = field(default="image", metadata=one_of(lambda: (*SCOPES, "tile")))
    tile_rows: int | None = field(default=None, metadata=optional(integer(1, 2**20)))
    tile_shape: str = field(default="strip", metadata=one_of(lambda: TILE_SHAPES))
    look_once: bool = field(default=False, metadata=flag())

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("scope", "tile_rows"), _tiles_have_rows),
    )

    @property
    def tile(self) -> Tile | None:
        """The tiles, if any."""
        if self.tile_rows is None:
            return None
        return Tile(rows=self.tile_rows, shape=self.tile_shape)

    def looks_once_at(self, layer: Layer) -> bool:
        """Whether a layer's pixels are looked at, not its rows."""
        return self.look_once and is_looked_at_once(layer)

    def length_in(self, layer: Layer) -> int:
        """L in a layer; of pixels that are looked at once at most a tap's channels.

        Raises:
            ConfigError: L is longer than a row.
        """
        if not self.looks_once_at(layer):
            return super().length_in(layer)
        assert layer.convolution is not None
        channels = layer.gemm.k // math.prod(layer.convolution.kernel)
        return min(self.length or channels, channels)

    def groups_in(self, layer: Layer) -> int:
        """Runs of a layer's rows that are clustered apart, or cut into tiles."""
        return 1 if self.scope in ("batch", "stream") else layer.row_images

    def looks(self, layer: Layer) -> Looks:
        """How the layer's vectors are looked at."""
        return looks_of(
            layer,
            self.length_in(layer),
            images=self.groups_in(layer),
            tile=self.tile,
            once=self.look_once,
        )

    def column_order(self, layer: Layer) -> np.ndarray | None:
        """`(k,)` int64, the layer's column at each place of a row that is cut; `None` as it is."""
        if not self.looks_once_at(layer):
            return super().column_order(layer)
        assert layer.convolution is not None
        taps = math.prod(layer.convolution.kernel)
        return np.arange(layer.gemm.k).reshape(-1, taps).T.ravel()

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """No row may be shorter than L, but where a pixel is looked at once."""
        super().check_layers([layer for layer in layers if not self.looks_once_at(layer)])

    def columns_of_views(self, layer: Layer) -> np.ndarray:
        """`(v, L)` int64, the columns that a vector's elements are found in; k beyond a short one.

        A pixel's are those of the tap that meets most pixels of its kind.
        """
        looks, k = self.looks(layer), layer.gemm.k
        order = self.column_order(layer)
        padded = np.append(np.arange(k) if order is None else order, k)
        firsts = looks.firsts.reshape(looks.taps, looks.segments)[looks.reference_taps].ravel()
        within = np.arange(looks.sub_vector_length)
        places = np.where(within < looks.widths[:, None], firsts[:, None] + within, k)
        return padded[places]
