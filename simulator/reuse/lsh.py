"""Deep reuse by locality-sensitive hashing with random hyperplanes."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from accelerators import PROJECTIONS, ConfigError
from simulator.reuse.decisions import ReuseDecisions
from simulator.reuse.kernels import cluster_rows
from simulator.reuse.policy import LayerState, ReusePolicy
from workloads.gemm import Layer

MAX_HASHES = 62
SCOPES = ("image", "batch")


@dataclass(frozen=True, kw_only=True)
class LshReuse(ReusePolicy):
    """Rows whose sub-vectors fall on the same side of H random hyperplanes share a result.

    Deep Reuse, section III-B: each `(m, k)` activation matrix is cut into sub-matrices of L
    columns; signature bit h of a sub-vector x is 1 where v_h . x exceeds a threshold (equation 1);
    equal signatures form a cluster, represented by its mean. One set of hyperplanes serves all
    sub-matrices of a layer.

    Attributes:
        hashes: H, 1 to 62.
        length: L, at least 1. A layer whose rows are shorter than L is refused.
        scope: `image` clusters the rows of each image apart, `batch` all rows of a batch together.
        centred: hash x - mean instead of x, with the mean of each column over the calibration
            activations. The hardware pays nothing: v . (x - mean) > 0 is v . x > v . mean, one
            threshold per hash and sub-matrix. `False` is the paper's plain form, threshold 0.
        projection: `sign` hyperplanes of +-1 (adders in hardware), `sparse` ones that leave two
            thirds of the elements out (Achlioptas, J. Comput. Syst. Sci. 66(4), 2003), or `int8`
            Gaussian ones, rounded to 8 bits (multipliers).
        seed: of the hyperplanes; a layer's own are drawn from it and the layer's name.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where L is longer than
            a row or activations are not finite, naming the layer.
    """

    hashes: int
    length: int
    scope: str = "image"
    centred: bool = True
    projection: str = "sign"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every rule."""
        broken = []
        for name, top in (("hashes", MAX_HASHES), ("length", 2**20)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= top:
                broken.append(f"LshReuse.{name} must be an integer from 1 to {top}, got {value!r}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            broken.append(f"LshReuse.seed must be an integer of at least 0, got {self.seed!r}")
        if not isinstance(self.centred, bool):
            broken.append(f"LshReuse.centred must be True or False, got {self.centred!r}")
        for name, allowed in (("scope", SCOPES), ("projection", PROJECTIONS)):
            if getattr(self, name) not in allowed:
                choices = ", ".join(map(repr, allowed[:-1])) + f" or {allowed[-1]!r}"
                broken.append(f"LshReuse.{name} must be {choices}, got {getattr(self, name)!r}")
        if broken:
            raise ConfigError(broken)

    def projections(self, layer_name: str) -> np.ndarray:
        """`(H, L)` float32 hyperplanes of a layer; a larger H keeps the first ones."""
        rng = np.random.default_rng([self.seed, zlib.crc32(layer_name.encode())])
        normal = rng.standard_normal((self.hashes, self.length), dtype=np.float32)
        if self.projection == "sign":
            return np.where(normal < 0, np.float32(-1), np.float32(1))
        if self.projection == "sparse":
            # Each third of the normal distribution lies beyond 0.9674 standard deviations, both
            # tails together.
            return np.sign(normal) * (np.abs(normal) > np.float32(0.967422))
        # Four standard deviations fill the 8 bits; the sign of a dot product ignores the scale.
        return np.clip(np.rint(normal * np.float32(127 / 4)), -127, 127)

    def thresholds(self, layer: Layer, state: LayerState) -> np.ndarray:
        """`(count, s, H)` float32, what a projection must exceed: v . mean, or 0 uncentred."""
        count, k = layer.gemm.count, layer.gemm.k
        sub_matrices = math.ceil(k / self.length)
        if not self.centred:
            return np.zeros((count, sub_matrices, self.hashes), np.float32)
        padded = np.zeros((count, sub_matrices * self.length), np.float32)
        padded[:, :k] = state["mean"]
        return padded.reshape(count, sub_matrices, self.length) @ self.projections(layer.name).T

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """No row may be shorter than L."""
        short = [layer for layer in layers if layer.gemm.k < self.length]
        if short:
            found = ", ".join(f"k={layer.gemm.k} of layer {layer.name!r}" for layer in short)
            raise ConfigError(
                f"LshReuse.length={self.length} must not exceed the row length k of a layer, got "
                f"{found}; use {min(layer.gemm.k for layer in short)} or less, or give these "
                "layers a policy of their own or NoReuse(): "
                + ", ".join(layer.name for layer in short)
            )

    def needs_calibration(self, layer: Layer) -> bool:
        """Only centred hashing does."""
        return self.centred

    def calibrate(self, layer: Layer, rows: np.ndarray) -> LayerState:
        """The mean of each column, `(count, k)`."""
        return {"mean": rows.mean(axis=1)}

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> ReuseDecisions | None:
        """Cluster the sub-vectors of one layer; `None` where each group has a single row."""
        count, m, k = rows.shape
        if self.length > k:
            raise ConfigError(
                f"LshReuse.length must not exceed the row length k={k} of layer {layer.name!r}, "
                f"got {self.length}; use {k} or less"
            )
        groups = layer.row_images if self.scope == "image" else 1
        if m == groups:
            return None
        sub_matrices = math.ceil(k / self.length)
        projections = self.projections(layer.name)
        thresholds = self.thresholds(layer, state)
        ids = np.empty((count, sub_matrices, m), np.int32)
        clusters = np.empty((count, sub_matrices, groups), np.int32)
        signatures, centroids = [], []
        for index in range(count):
            columns = np.ascontiguousarray(rows[index].T, dtype=np.float32)
            found_signatures, found_centroids = cluster_rows(
                columns, self.length, groups, projections, thresholds[index],
                ids[index], clusters[index],
            )  # fmt: skip
            signatures.append(found_signatures)
            centroids.append(found_centroids)
        means = np.concatenate(centroids)
        # Every element went into a mean, so a NaN or infinity anywhere shows in their sum.
        if not np.isfinite(means.sum(dtype=np.float64)):
            raise ConfigError(
                f"activations of layer {layer.name!r} must be finite, got NaN or infinity; "
                "check the model's weights and inputs"
            )
        return ReuseDecisions(
            layer=layer.name,
            gemm=layer.gemm,
            sub_vector_length=self.length,
            hashes=self.hashes,
            projection=self.projection,
            groups=groups,
            ids=ids,
            clusters=clusters,
            signatures=np.concatenate(signatures),
            centroids=means,
        )

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "lsh", **asdict(self)}
