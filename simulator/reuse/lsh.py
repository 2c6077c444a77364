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
from simulator.reuse.stream import ClusterCache, LayerMemory, empty_memory, serve_batch
from workloads.gemm import Layer

MAX_HASHES = 62
SCOPES = ("image", "batch", "stream")


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
        scope: `image` clusters the rows of each image apart, `batch` all rows of a batch together;
            `stream` looks the rows of a batch up among the clusters of the batches before
            (cluster reuse, Algorithm 1), see `decide_next`.
        centred: hash x - mean instead of x, with the mean of each column over the calibration
            activations. The hardware pays nothing: v . (x - mean) > 0 is v . x > v . mean, one
            threshold per hash and sub-matrix. `False` is the paper's plain form, threshold 0.
        projection: `sign` hyperplanes of +-1 (adders in hardware), `sparse` ones that leave two
            thirds of the elements out (Achlioptas, J. Comput. Syst. Sci. 66(4), 2003), or `int8`
            Gaussian ones, rounded to 8 bits (multipliers).
        seed: of the hyperplanes; a layer's own are drawn from it and the layer's name.
        cache: the table that keeps a stream's clusters; `None`, in scope `stream`, is the paper's,
            which forgets nothing.

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
    cache: ClusterCache | None = None

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
        if self.cache is not None and not isinstance(self.cache, ClusterCache):
            broken.append(
                f"LshReuse.cache must be None or a ClusterCache, got {self.cache!r:.60}; "
                "try ClusterCache(entries=1024, ways=4)"
            )
        elif self.cache is not None and self.scope != "stream":
            broken.append(
                f"LshReuse.cache must be None with scope={self.scope!r}, got {self.cache}; "
                "use scope='stream'"
            )
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

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """No row may be shorter than L, and kept results need weights that stay."""
        broken = []
        changing = [layer.name for layer in layers if not layer.weights_are_parameters]
        if self.scope == "stream" and changing:
            broken.append(
                "LshReuse.scope must be 'image' or 'batch' where a layer's right-hand matrix is an "
                f"activation, got 'stream' for {', '.join(changing)}; give these layers a policy "
                "of their own or NoReuse()"
            )
        short = [layer for layer in layers if layer.gemm.k < self.length]
        if short:
            found = ", ".join(f"k={layer.gemm.k} of layer {layer.name!r}" for layer in short)
            broken.append(
                f"LshReuse.length={self.length} must not exceed the row length k of a layer, got "
                f"{found}; use {min(layer.gemm.k for layer in short)} or less, or give these "
                "layers a policy of their own or NoReuse(): "
                + ", ".join(layer.name for layer in short)
            )
        if broken:
            raise ConfigError(broken)

    def needs_calibration(self, layer: Layer) -> bool:
        """Only centred hashing does."""
        return self.centred

    def calibrate(self, layer: Layer, rows: np.ndarray) -> LayerState:
        """The mean of each column, `(count, k)`."""
        return {"mean": rows.mean(axis=1)}

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> ReuseDecisions | None:
        """Cluster the sub-vectors of one layer; `None` where each group has a single row."""
        if self.scope == "stream":
            return self.decide_next(layer, rows, state, None)[0]
        count, m, k = rows.shape
        self._check_row_length(layer, k)
        groups = layer.row_images if self.scope == "image" else 1
        if m == groups:
            return None
        sub_matrices = math.ceil(k / self.length)
        projections = self.projections(layer.name)
        thresholds = self._thresholds(projections, state, count, k)
        ids = np.empty((count, sub_matrices, m), np.int32)
        clusters = np.empty((count, sub_matrices, groups), np.int32)
        largest = min(m // groups, 2**self.hashes)
        capacity = sub_matrices * groups * largest
        signatures, centroids = [], []
        for index in range(count):
            found_signatures = np.empty(capacity, np.uint64)
            found_centroids = np.empty((capacity, self.length), np.float32)
            columns = np.ascontiguousarray(rows[index].T, dtype=np.float32)
            total = cluster_rows(
                columns, self.length, groups, projections, thresholds[index],
                ids[index], clusters[index], found_signatures, found_centroids,
            )  # fmt: skip
            signatures.append(found_signatures[:total].copy())
            centroids.append(found_centroids[:total].copy())
        means = np.concatenate(centroids)
        # Every element went into a mean, so a NaN or infinity anywhere shows in their sum.
        if not np.isfinite(means.sum(dtype=np.float64)):
            raise _not_finite(layer)
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

    def decide_next(
        self, layer: Layer, rows: np.ndarray, state: LayerState, memory: LayerMemory | None
    ) -> tuple[ReuseDecisions | None, LayerMemory | None]:
        """In scope `stream`, look a batch's sub-vectors up among the clusters kept in `memory`.

        A cluster of an earlier batch keeps the representative, hence the result, that it had; a new
        one gets the mean of its rows in this batch. Also a single row is looked up.
        """
        if self.scope != "stream":
            return self.decide(layer, rows, state), None
        count, _, k = rows.shape
        self._check_row_length(layer, k)
        if memory is None:
            memory = empty_memory(count, k, self.length)
        known, shape = memory["shape"].tolist(), [count, k, self.length]
        if known != shape:
            raise ConfigError(
                f"memory of layer {layer.name!r} must be of (count, k, L) = {tuple(shape)}, got "
                f"{tuple(known)}; start without memory"
            )
        if not all(np.isfinite(each).all() for each in rows):
            raise _not_finite(layer)
        projections = self.projections(layer.name)
        thresholds = self._thresholds(projections, state, count, k)
        cache = self.cache or ClusterCache()
        served = serve_batch(rows, cache, projections, thresholds, memory)
        decisions = ReuseDecisions(
            layer=layer.name,
            gemm=layer.gemm,
            sub_vector_length=self.length,
            hashes=self.hashes,
            projection=self.projection,
            groups=1,
            ids=served.ids,
            clusters=served.clusters,
            signatures=served.signatures,
            centroids=served.representatives,
            fresh=served.fresh,
            cache=cache,
        )
        return decisions, served.memory

    def _check_row_length(self, layer: Layer, k: int) -> None:
        if self.length > k:
            raise ConfigError(
                f"LshReuse.length must not exceed the row length k={k} of layer {layer.name!r}, "
                f"got {self.length}; use {k} or less"
            )

    def _thresholds(
        self, projections: np.ndarray, state: LayerState, count: int, k: int
    ) -> np.ndarray:
        """`(count, s, H)` float32 that a projection must exceed for a 1."""
        sub_matrices = math.ceil(k / self.length)
        thresholds = np.zeros((count, sub_matrices, self.hashes), np.float32)
        if self.centred:
            padded = np.zeros((count, sub_matrices * self.length), np.float32)
            padded[:, :k] = state["mean"]
            thresholds[:] = padded.reshape(count, sub_matrices, self.length) @ projections.T
        return thresholds

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "lsh", **asdict(self)}


def _not_finite(layer: Layer) -> ConfigError:
    return ConfigError(
        f"activations of layer {layer.name!r} must be finite, got NaN or infinity; "
        "check the model's weights and inputs"
    )
