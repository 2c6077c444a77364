"""What every policy that clusters the sub-vectors of a layer's rows has in common."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np

from accelerators import ConfigError
from accelerators.rules import integer, one_of, optional, refuse, violations
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Evidence
from simulator.decisions.looks import Looks
from simulator.policies.activations import check_rows
from simulator.policies.clustering import Clusterer, Cutting
from simulator.policies.looking import looks_of
from simulator.policies.policy import LayerState, ReusePolicy
from workloads.traces.layer import Layer
from workloads.traces.unfold import ORDERS

SCOPES = ("image", "batch")
REPRESENTATIVES = ("centroid", "first")


@dataclass(frozen=True, kw_only=True)
class SubVectorPolicy(ReusePolicy):
    """Cuts the rows of a layer into sub-vectors and clusters those of each sub-matrix.

    Deep Reuse, section III-B: the `(m, k)` activations are cut into sub-matrices of L columns;
    each is clustered on its own, and a cluster's members share one product with the weights.

    Attributes:
        length: L, at least 1, or `None` for whole rows. A layer whose rows are shorter than L is
            refused.
        scope: `image` clusters the rows of each image apart, `batch` all rows of a batch together.
        order: order of a convolution's row before it is cut: `channels_first` is (c, kh, kw) as
            PyTorch unfolds, `channels_last` is (kh, kw, c). Other layers have one order only.
        representative: of a cluster: `centroid`, the mean of its members, or `first`, the first
            one in the stream.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where L is longer than
            a row or activations are not finite, naming the layer.
    """

    kind: ClassVar[str]

    length: int | None = field(metadata=optional(integer(1, 2**20)))
    scope: str = field(default="image", metadata=one_of(lambda: SCOPES))
    order: str = field(default="channels_first", metadata=one_of(lambda: ORDERS))
    representative: str = field(default="centroid", metadata=one_of(lambda: REPRESENTATIVES))

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, type(self).__name__))

    @abstractmethod
    def clusterer(self, layer: Layer, groups: int, state: LayerState) -> Clusterer:
        """Prepare to cluster the layer's GEMMs.

        Args:
            layer: the layer.
            groups: runs of rows that are clustered apart.
            state: what `calibrate` returned for this layer.
        """

    @abstractmethod
    def evidence(self, layer: Layer, signatures: np.ndarray) -> Evidence:
        """What was looked at to find the clusters.

        Args:
            layer: the layer.
            signatures: `(total clusters,)` uint64, those of the clusters that `clusterer` made.
                `Signatures` claims that hashing units tell clusters apart by them, which is
                checked.
        """

    def length_in(self, layer: Layer) -> int:
        """L in a layer: its row length where the policy takes whole rows.

        Raises:
            ConfigError: L is longer than a row.
        """
        k = layer.gemm.k
        if self.length is None:
            return k
        if self.length > k:
            raise ConfigError(
                f"{type(self).__name__}.length must not exceed the row length k={k} of layer "
                f"{layer.name!r}, got {self.length}; use {k} or less"
            )
        return self.length

    def sub_matrices_in(self, layer: Layer) -> int:
        """Sub-matrices of each of a layer's GEMMs."""
        return math.ceil(layer.gemm.k / self.length_in(layer))

    def groups_in(self, layer: Layer) -> int:
        """Runs of a layer's rows that are clustered apart."""
        return layer.row_images if self.scope == "image" else 1

    def column_order(self, layer: Layer) -> np.ndarray | None:
        """`(k,)` int64, the layer's column at each place of a row that is cut; `None` as it is."""
        if self.order == "channels_first" or layer.kind != "conv" or layer.convolution is None:
            return None
        taps = math.prod(layer.convolution.kernel)
        if taps in (1, layer.gemm.k):  # a single tap or channel has one order
            return None
        return np.arange(layer.gemm.k).reshape(-1, taps).T.ravel()

    def looks(self, layer: Layer) -> Looks:
        """How the layer's vectors are looked at.

        Raises:
            ConfigError: L is longer than a row.
        """
        return looks_of(
            layer, self.length_in(layer), images=self.groups_in(layer), tile=None, once=False
        )

    def cutting(self, layer: Layer) -> Cutting:
        """How the layer's rows are cut.

        Raises:
            ConfigError: L is longer than a row.
        """
        return Cutting(
            looks=self.looks(layer),
            column_order=self.column_order(layer),
            representative=self.representative,
        )

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """No row may be shorter than L."""
        if self.length is None:
            return
        short = [layer for layer in layers if layer.gemm.k < self.length]
        if short:
            found = ", ".join(f"k={layer.gemm.k} of layer {layer.name!r}" for layer in short)
            raise ConfigError(
                f"{type(self).__name__}.length={self.length} must not exceed the row length k of a "
                f"layer, got {found}; use {min(layer.gemm.k for layer in short)} or less, or give "
                "these layers a policy of their own or NoReuse(): "
                + ", ".join(layer.name for layer in short)
            )

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """Cluster the sub-vectors of one layer; `None` where each has no other to be like."""
        check_rows(layer, rows)
        cutting = self.cutting(layer)
        if cutting.looks.are_alone:
            return None
        cluster = self.clusterer(layer, self.groups_in(layer), state)
        made = cutting.clustered(layer, rows, cluster)
        return cutting.decisions(layer, made, partial(self.evidence, layer))

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": self.kind, **asdict(self)}
