"""Deep reuse by locality-sensitive hashing: random, learned and Euclidean."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from accelerators import PROJECTIONS, ConfigError
from accelerators.rules import Relation, flag, integer, one_of, real, refuse, true_of
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Buckets, Evidence, Signatures
from simulator.decisions.rows import SharedRows
from simulator.decisions.table import ClusterCache
from simulator.kernels.grouping import Clusters, represent
from simulator.policies.activations import check_finite, check_rows, check_state
from simulator.policies.buckets import by_bucket, unit_sub_vectors
from simulator.policies.clustering import Clusterer, SignatureClustering
from simulator.policies.hyperplanes import CalibrationRows, principal, quantised, task_learned
from simulator.policies.policy import LayerMemory, LayerState, ReadWeights
from simulator.policies.stream_tables import check_memory, empty_memory, serve_batch, signs_of
from simulator.policies.sub_vectors import SCOPES
from simulator.policies.technique import Technique, register
from simulator.policies.thresholds import (
    FOLLOWED,
    SAMPLE_ROWS,
    THRESHOLDS,
    places_of,
    sample_of,
    thresholds_of,
)
from simulator.policies.tiled import TiledPolicy
from workloads.traces.layer import Layer

MAX_HASHES = 62
METRICS = ("angular", "euclidean")
LEARNINGS = ("none", "pca", "itq", "task")


def _projection_can_be_learned(policy: "LshReuse") -> list[str]:
    """Learned hyperplanes are rounded to 8 bits; only gradients can learn signs."""
    allowed = {"none": PROJECTIONS, "task": ("int8", "sign")}.get(policy.learning, ("int8",))
    if policy.projection in allowed:
        return []
    wanted = " or ".join(map(repr, allowed))
    return [
        f"projection must be {wanted} with learning={policy.learning!r}, got "
        f"{policy.projection!r}; use {allowed[0]!r}, or learning='none'"
    ]


def _metric_can_be_learned(policy: "LshReuse") -> list[str]:
    """The gradient is that of signs, not of buckets."""
    if policy.learning != "task" or policy.metric == "angular":
        return []
    return [
        f"metric must be 'angular' with learning='task', got {policy.metric!r}; "
        "use 'angular', or learning='pca'"
    ]


def _cache_keeps_a_stream(policy: "LshReuse") -> list[str]:
    """Only a stream has clusters to keep."""
    if policy.cache is None or policy.scope == "stream":
        return []
    return [
        f"cache must be None with scope={policy.scope!r}, got {policy.cache}; use scope='stream'"
    ]


def _only_plain_means_in_tiles(policy: "LshReuse") -> list[str]:
    """Tiles and pixels are clustered by plain signatures, batch for batch."""
    asked = [f"scope={policy.scope!r}"] * (policy.scope == "tile")
    asked += ["look_once=True"] * policy.look_once
    if not asked:
        return []
    where = " and ".join(asked)
    broken = []
    if policy.metric != "angular":
        broken.append(f"metric must be 'angular' with {where}, got {policy.metric!r}")
    if policy.normalised:
        broken.append(f"normalised must be False with {where}, got True")
    if policy.scope == "stream":
        broken.append(f"scope must be 'tile', 'image' or 'batch' with {where}, got 'stream'")
    return [f"{each}; change one of them" for each in broken]


def _stream_keeps_plain_means(policy: "LshReuse") -> list[str]:
    """A stream's table holds signatures and the means themselves."""
    if policy.scope != "stream" or (policy.metric == "angular" and not policy.normalised):
        return []
    return [
        "scope must be 'image' or 'batch' with metric='euclidean' or normalised=True, got "
        "'stream'; use 'batch'"
    ]


_CACHE_OR_NONE = true_of(
    lambda value: isinstance(value, ClusterCache | None),
    "be None or a ClusterCache",
    "try ClusterCache(entries=1024, ways=4)",
)


@dataclass(frozen=True, kw_only=True)
class LshReuse(TiledPolicy):
    """Sub-vectors with equal signatures, under H hyperplanes, share a result.

    Deep Reuse, section III-B: signature bit h of a sub-vector x is 1 where v_h . x exceeds a
    threshold (equation 1); equal signatures form a cluster. One set of hyperplanes serves all
    sub-matrices of a layer.

    Attributes:
        hashes: H, 1 to 62.
        scope: also `stream`: looks the rows of a batch up among the clusters of the batches before
            (cluster reuse, Algorithm 1), see `decide_next`.
        thresholds: what a projection v . x must exceed for a bit of 1; all cost the hardware the
            same comparison. `zero` is the paper's form, for which activations that are
            all positive look alike. `mean` is v . mean, with the mean of each column over the
            calibration activations: x - mean is hashed. `spread` moves these by up to `spread`
            standard deviations of v . x, differently for each hyperplane, so that the length of
            x - mean counts as well as its direction.
        spread: standard deviations up to which thresholds are `spread`.
        projection: `sign` hyperplanes of +-1 (adders in hardware), `sparse` ones that leave two
            thirds of the elements out (Achlioptas, J. Comput. Syst. Sci. 66(4), 2003), or `int8`
            Gaussian ones, rounded to 8 bits (multipliers). Only 2^(L-1) `sign` hyperplanes cut
            differently, so with a short L some of the H repeat each other.
        metric: `angular`, or `euclidean`: floor((v . x + b) / w) instead of a sign, b uniform in
            [0, w), the p-stable LSH of Datar et al. (SoCG 2004), where `int8` projections are its
            Gaussian ones. Buckets are told apart by a 64-bit hash of all H of them. No accelerator
            described here builds it.
        bucket_width: w of the Euclidean metric, as a multiple of the standard deviation of v . x
            over the calibration sub-vectors, each less its sub-matrix's mean.
        learning: where hyperplanes come from. `none`: drawn at random. `pca`: the principal
            directions of the calibration sub-vectors (about the origin if thresholds are `zero`,
            else about their mean), and for H > L random rotations of them. `itq`: principal
            directions, rotated by iterative quantisation; for H > L several rotations of all L.
            `task`: learned by gradient to make the layer's output err least (as TREC, ASPLOS 2022,
            but layer by layer), from random ones. Learned ones are rounded to 8 bits and need
            `projection="int8"`; `task` also learns `sign` ones.
        normalised: divide every sub-vector by its norm before the mean is taken, and multiply its
            results by that norm. A cluster then shares a direction, and each member keeps its
            length. No accelerator described here multiplies what it gathers.
        seed: of the hyperplanes; a layer's own are drawn from it and the layer's name.
        cache: the table that keeps a stream's clusters; `None`, in scope `stream`, is the paper's,
            which forgets nothing.
    """

    kind: ClassVar[str] = "lsh"

    scope: str = field(default="image", metadata=one_of(lambda: (*SCOPES, "tile", "stream")))
    hashes: int = field(metadata=integer(1, MAX_HASHES))
    thresholds: str = field(default="spread", metadata=one_of(lambda: THRESHOLDS))
    spread: float = field(default=1.0, metadata=real(0, 10))
    projection: str = field(default="sign", metadata=one_of(lambda: PROJECTIONS))
    metric: str = field(default="angular", metadata=one_of(lambda: METRICS))
    bucket_width: float = field(default=1.0, metadata=real(1e-3, 1e3))
    learning: str = field(default="none", metadata=one_of(lambda: LEARNINGS))
    normalised: bool = field(default=False, metadata=flag())
    seed: int = field(default=0, metadata=integer(0, 2**63 - 1))
    cache: ClusterCache | None = field(default=None, metadata=_CACHE_OR_NONE)

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("projection", "learning"), _projection_can_be_learned),
        Relation(("metric", "learning"), _metric_can_be_learned),
        Relation(("scope", "cache"), _cache_keeps_a_stream),
        Relation(("scope", "metric", "normalised"), _stream_keeps_plain_means),
        *TiledPolicy.RELATIONS,
        Relation(("scope", "look_once", "metric", "normalised"), _only_plain_means_in_tiles),
    )

    def projections(self, layer_name: str, length: int | None = None) -> np.ndarray:
        """`(H, L)` float32 random hyperplanes of a layer; a larger H keeps the first ones.

        Args:
            layer_name: the layer.
            length: L, where the policy takes whole rows.
        """
        columns = length or self.length
        assert columns is not None, "whole rows have the layer's length"
        normal = self._rng(layer_name).standard_normal((self.hashes, columns), dtype=np.float32)
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
        broken: list[str] = []
        changing = [layer.name for layer in layers if not layer.weights_are_parameters]
        if self.scope == "stream" and changing:
            broken.append(
                "LshReuse.scope must be 'image' or 'batch' where a layer's right-hand matrix is an "
                f"activation, got 'stream' for {', '.join(changing)}; give these layers a policy "
                "of their own or NoReuse()"
            )
        try:
            super().check_layers(layers)
        except ConfigError as error:
            broken += error.violations
        refuse(broken)

    def needs_calibration(self, layer: Layer) -> bool:
        """Random hyperplanes with thresholds of zero do not."""
        return self.thresholds != "zero" or self.metric == "euclidean" or self.learning != "none"

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """What hashing needs: `mean` `(count, k)`, and as the parameters ask for it more.

        `sample` `(count, 128, k)` are rows that tell how widely projections vary, `projections`
        `(H, L)` learned hyperplanes, `deviation` `(H,)` that of each v . x for the Euclidean
        metric. Without learning and that metric the same state serves any H and L. In place of mean
        and sample a state may hold the `thresholds` themselves, `(count, v, H)`, as
        `ReusedForward.states` does after training.
        """
        check_rows(layer, rows)
        mean = rows.mean(axis=1)
        check_finite(layer, mean)
        state = {"mean": mean}
        if self.thresholds == "spread":
            state["sample"] = sample_of(rows)
        if self.learning != "none":
            shift = np.zeros_like(mean) if self.thresholds == "zero" else mean
            state["projections"] = self._learned(layer, rows, shift, weights)
        if self.metric == "euclidean":
            moment = self._calibration(layer, rows, mean).second_moment()
            planes = self._hyperplanes(layer, state)
            state["deviation"] = np.sqrt(np.einsum("hi,ij,hj->h", planes, moment, planes)).astype(
                np.float32
            )
        return state

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """Cluster the sub-vectors of one layer; `None` where each group has a single row."""
        if self.scope == "stream":
            return self.decide_next(layer, rows, state, None)[0]
        return super().decide(layer, rows, state)

    def decide_next(
        self, layer: Layer, rows: np.ndarray, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """In scope `stream`, look a batch's sub-vectors up among the clusters kept in `memory`.

        A cluster of an earlier batch keeps the representative, hence the result, that it had; a new
        one gets the mean, or the first, of its rows in this batch. Also a single row is looked up.
        """
        if self.scope != "stream":
            return self.decide(layer, rows, state), None
        check_rows(layer, rows)
        for each in rows:
            check_finite(layer, each)
        count, k, length = layer.gemm.count, layer.gemm.k, self.length_in(layer)
        if memory is None:
            memory = empty_memory(count, k, length)
        order = self.column_order(layer)
        cache = self._cache
        assert cache is not None
        check_memory(layer.name, memory, cache, (count, k, length), self.hashes)
        served = serve_batch(
            rows,
            np.arange(k) if order is None else order,
            cache,
            signs_of(*self.hashing(layer, state)),
            memory,
            length=length,
            bits=self.hashes,
            first_only=self.representative == "first",
        )
        shared = SharedRows(
            gemm=layer.gemm,
            looks=self.looks(layer),
            ids=served.ids,
            clusters=served.clusters,
            centroids=served.representatives,
            ages=served.ages,
            representative=self.representative,
            column_order=order,
        )
        decisions = Decisions(
            layer=layer.name,
            gemm=layer.gemm,
            rows=shared,
            evidence=self.evidence(layer, served.signatures),
        )
        return decisions, served.memory

    def hashing(self, layer: Layer, state: LayerState) -> tuple[np.ndarray, np.ndarray]:
        """A layer's `(H, L)` float32 hyperplanes and `(count, s, H)` float32 thresholds.

        Args:
            layer: the layer.
            state: what `calibrate` returned for it.

        Raises:
            ConfigError: the state is another policy's.
        """
        self._check_state(layer, state)
        projections = self._hyperplanes(layer, state)
        return projections, self._thresholds(layer, state, projections)

    def clustering(self, layer: Layer, state: LayerState) -> SignatureClustering | None:
        """Signatures of plain sub-vectors, within an image or a batch."""
        plain = self.metric == "angular" and self.scope != "stream" and not self.normalised
        if not plain or self.looks(layer).are_alone:
            return None
        return self._signatures(layer, state)

    def _signatures(self, layer: Layer, state: LayerState) -> SignatureClustering:
        """How equal signatures (Deep Reuse, equation 1) are found."""
        hyperplanes, thresholds = self.hashing(layer, state)
        return SignatureClustering(
            **vars(self.cutting(layer)),
            hyperplanes=hyperplanes,
            thresholds=thresholds,
            projection=self.projection,
            offsets=self._offsets,
        )

    @property
    def _offsets(self) -> np.ndarray | None:
        """`(H,)` float32, see `SignatureClustering`; learned hyperplanes change with them."""
        if self.learning != "none" or self.thresholds == "zero":
            return None
        spread = self.spread if self.thresholds == "spread" else 0.0
        return (spread * places_of(self.hashes)).astype(np.float32)

    def clusterer(self, layer: Layer, groups: int, state: LayerState) -> Clusterer:
        """By signatures or by buckets."""
        cluster = (
            self._signatures(layer, state).clusterer(layer)
            if self.metric == "angular"
            else self._buckets(layer, state)
        )
        if not self.normalised:
            return cluster
        length = self.length_in(layer)

        def normalise(index: int, columns: np.ndarray, order: np.ndarray) -> Clusters:
            check_finite(layer, columns)
            made = cluster(index, columns, order)
            unit, norms = unit_sub_vectors(columns[order], length)
            means = represent(unit, length, made.ids, made.clusters, self.representative)
            return replace(made, representatives=means, scales=norms)

        return normalise

    def _buckets(self, layer: Layer, state: LayerState) -> Clusterer:
        """By the buckets of every projection."""
        self._check_state(layer, state)
        widths = np.asarray(state["deviation"], np.float64) * self.bucket_width
        widths = np.where(widths > 0, widths, 1.0)[:, None]  # a constant has a bucket of its own
        shifts = widths * self._rng(layer.name).random((self.hashes, 1))
        planes = self._hyperplanes(layer, state)
        return by_bucket(layer, self.cutting(layer), planes, widths, shifts)

    def evidence(self, layer: Layer, signatures: np.ndarray) -> Evidence:
        """Signatures, or the buckets of the Euclidean metric."""
        if self.metric == "euclidean":
            return Buckets()
        return Signatures(
            hashes=self.hashes, projection=self.projection, values=signatures, cache=self._cache
        )

    @property
    def _cache(self) -> ClusterCache | None:
        """The table of a stream."""
        return (self.cache or ClusterCache()) if self.scope == "stream" else None

    def _rng(self, layer_name: str) -> np.random.Generator:
        """Random numbers of a layer."""
        return np.random.default_rng([self.seed, zlib.crc32(layer_name.encode())])

    def _calibration(self, layer: Layer, rows: np.ndarray, shift: np.ndarray) -> CalibrationRows:
        """Calibration activations as sub-vectors."""
        return CalibrationRows(
            rows=rows,
            order=self.column_order(layer),
            length=self.length_in(layer),
            shift=shift,
            # As many rows a group as the layer has; calibration may hold other images.
            groups=max(1, rows.shape[1] * self.looks(layer).tiles // layer.gemm.m)
            if self.scope in ("image", "tile")
            else 1,
        )

    def _learned(
        self, layer: Layer, rows: np.ndarray, shift: np.ndarray, weights: ReadWeights | None
    ) -> np.ndarray:
        """`(H, L)` float32 learned hyperplanes, whole numbers."""
        looks = self.looks(layer)
        if looks.taps > 1 and (looks.widths != looks.sub_vector_length).any():
            raise ConfigError(
                f"LshReuse.length must divide the channels of a tap of layer {layer.name!r}, "
                f"{layer.gemm.k // looks.taps}, to learn hyperplanes with look_once=True, got "
                f"{self.length}; use a divisor, or learning='none'"
            )
        calibration = self._calibration(layer, rows, shift)
        rng = self._rng(layer.name)
        if self.learning == "pca":
            planes = principal(calibration, self.hashes, rng)
        elif self.learning == "itq":
            planes = quantised(calibration, self.hashes, rng)
        else:
            if weights is None:
                raise ConfigError(
                    f"weights of layer {layer.name!r} must be given to learn LshReuse.learning="
                    "'task', got none; pass them to calibrate()"
                )
            # Gaussian ones, whose signs are those of the +-1 ones.
            gaussian = replace(self, projection="int8")
            start = gaussian.projections(layer.name, calibration.length)
            planes = task_learned(calibration, start, weights, rng, signs=self.projection == "sign")
        if self.projection == "sign":
            return np.where(planes < 0, np.float32(-1), np.float32(1))
        largest = np.abs(planes).max(axis=1, keepdims=True)
        return np.rint(planes * (127 / np.where(largest > 0, largest, 1))).astype(np.float32)

    def _check_state(self, layer: Layer, state: LayerState) -> None:
        """What `calibrate` made must be of these parameters."""
        wanted: dict[str, tuple[int, ...]] = {}
        followed = self._is_followed(state)
        if followed:
            wanted[FOLLOWED] = (layer.gemm.count, self.looks(layer).views, self.hashes)
        if self.thresholds != "zero" and not followed:
            wanted["mean"] = (layer.gemm.count, layer.gemm.k)
        if self.thresholds == "spread" and not followed:
            wanted["sample"] = (layer.gemm.count, SAMPLE_ROWS, layer.gemm.k)
        if self.learning != "none":
            wanted["projections"] = (self.hashes, self.length_in(layer))
        if self.metric == "euclidean":
            wanted["deviation"] = (self.hashes,)
        check_state(layer, state, wanted)

    def _is_followed(self, state: LayerState) -> bool:
        """Whether a state holds thresholds that training followed."""
        return FOLLOWED in state and self._offsets is not None

    def _hyperplanes(self, layer: Layer, state: LayerState) -> np.ndarray:
        """`(H, L)` float32, learned or drawn."""
        if self.learning != "none":
            return np.asarray(state["projections"], np.float32)
        return self.projections(layer.name, self.length_in(layer))

    def _thresholds(self, layer: Layer, state: LayerState, projections: np.ndarray) -> np.ndarray:
        """`(count, v, H)` float32, what a projection must exceed for a bit of 1.

        Those of a pixel's vectors follow from the tap that meets most of them.
        """
        gemm, looks = layer.gemm, self.looks(layer)
        if self.thresholds == "zero":
            return np.zeros((gemm.count, looks.views, self.hashes), np.float32)
        if self._is_followed(state):
            return np.asarray(state[FOLLOWED], np.float32)
        columns = self.columns_of_views(layer)
        return thresholds_of(self.thresholds, state, projections, columns, self.spread)


register(
    Technique(
        name="lsh",
        title="deep reuse",
        axis="rows",
        word="share",
        grain="sub-vector",
        rule="Sub-vectors of L elements whose H hashes are equal form a cluster; its mean is "
        "multiplied once, and all members take the result.",
        evidence="signatures",
        source="Ning and Shen, Deep Reuse, ICS 2019",
        policy=LshReuse,
        units=("front_end", "cache", "centroid_buffer", "reconstructor"),
        choices={
            "hashes": (8, 12, 16, 20, 24, 32, 40),
            "length": (8, 16, 32, 64, 128),
            "tile_rows": (64, 128, 256, 512, 1024),
            "tile_shape": ("strip", "block"),
            "look_once": (True, False),
        },
        start={
            "hashes": 24,
            "length": 64,
            "tile_rows": 128,
            "tile_shape": "strip",
            "look_once": True,
            "scope": "tile",
            "order": "channels_last",
        },
        own=("hashes",),
        hardware={"front_end.projection": PROJECTIONS},
    )
)
