"""Clusters of equal signatures on any device, and thresholds that follow the activations."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simulator.policies.clustering import SignatureClustering
from simulator.running.on_device.vectors import Grouped, Vectors

# Bits that a sum of powers of two holds exactly in float32.
_EXACT_BITS = 24
_KEY_BITS = 63
# What a step's activations weigh in the running estimates: batch normalisation's.
_MOMENTUM = 0.1
# Vectors of a kind of taps from which a step's mean and variance are taken: to 2 % of a deviation
# the mean, at the cost of a few of the hundred times as many that a layer has.
_SAMPLE = 2048


@dataclass(frozen=True, eq=False)
class FollowedThresholds:
    """Running estimates of a layer's projections, from which its thresholds follow.

    As batch normalisation's: a step's mean and variance, of a fixed sample of 2,048 vectors of each
    kind of taps, are taken in with a weight of 0.1, those of the first step as they are.

    Attributes:
        centre: `(kinds, sub-matrices, H)` float32, mean of the projections.
        variance: the same shape, float32, of the projections.
    """

    centre: Tensor
    variance: Tensor

    def on(self, device: torch.device) -> "FollowedThresholds":
        """The same on a device."""
        return FollowedThresholds(self.centre.to(device), self.variance.to(device))

    def after(self, centre: Tensor, variance: Tensor) -> "FollowedThresholds":
        """The estimates after a step's mean and variance."""
        here = self.on(centre.device)
        return FollowedThresholds(
            here.centre.lerp(centre, _MOMENTUM), here.variance.lerp(variance, _MOMENTUM)
        )

    def thresholds(self, offsets: Tensor) -> Tensor:
        """`(kinds, sub-matrices, H)` float32.

        Args:
            offsets: `(H,)` float32, of a threshold from the mean in standard deviations.
        """
        return self.centre + self.variance.sqrt() * offsets


class SignatureGrouping:
    """Finds sub-vectors of equal signatures.

    Args:
        vectors: what may share a cluster.
        clustering: how signatures are made.
        device: where sub-vectors are.
    """

    def __init__(
        self, vectors: Vectors, clustering: SignatureClustering, device: torch.device
    ) -> None:
        kinds = vectors.looks.taps_of_kind.size
        count, segments = vectors.looks.gemm.count, vectors.looks.segments
        self._hashes = clustering.hashes
        # Where key and signature fit into one number, they are told apart in one pass.
        key_bits = int(vectors.group_count * vectors.sub_matrices - 1).bit_length()
        self._fits = self._hashes + key_bits <= _KEY_BITS
        self._keys = torch.from_numpy(vectors.keys << self._hashes * self._fits).to(device)
        by_kind = clustering.thresholds.reshape(count, kinds, segments, -1)
        thresholds = np.moveaxis(by_kind, 1, 0).reshape(kinds, count * segments, -1)
        self._thresholds = torch.from_numpy(np.ascontiguousarray(thresholds)).to(device)
        self._kind_of = torch.from_numpy(vectors.kinds).to(device) if kinds > 1 else None
        self._samples = [
            torch.from_numpy(_sample(np.flatnonzero(vectors.kinds == kind))).to(device)
            for kind in range(kinds)
        ]
        self._planes = torch.from_numpy(clustering.hyperplanes.T.copy()).to(device)
        offsets = clustering.offsets
        self._offsets = None if offsets is None else torch.from_numpy(offsets).to(device)
        self._gemms = count
        places = np.arange(self._hashes)
        powers = np.zeros((self._hashes, -(-self._hashes // _EXACT_BITS)), np.float32)
        powers[places, places // _EXACT_BITS] = 2.0 ** (places % _EXACT_BITS)
        self._powers = torch.from_numpy(powers).to(device)

    @property
    def follows(self) -> bool:
        """Whether thresholds have a mean and a deviation to follow."""
        return self._offsets is not None

    def take_in(self, cut: Tensor, followed: FollowedThresholds | None) -> FollowedThresholds:
        """Running estimates with a step's sub-vectors taken in; new ones of `None`."""
        moments = [
            torch.var_mean(cut[sample] @ self._planes, dim=0, correction=0)
            for sample in self._samples
        ]
        variances, centres = zip(*moments, strict=True)
        found = torch.stack(centres), torch.stack(variances)
        return FollowedThresholds(*found) if followed is None else followed.after(*found)

    def follow(self, followed: FollowedThresholds) -> Tensor:
        """Hash by the thresholds of running estimates from now on.

        Returns:
            These, `(count, v, H)` float32, as `SignatureClustering` has them.
        """
        assert self._offsets is not None
        self._thresholds = followed.on(self._offsets.device).thresholds(self._offsets)
        kinds, _, hashes = self._thresholds.shape
        by_kind = self._thresholds.view(kinds, self._gemms, -1, hashes)
        return by_kind.movedim(1, 0).reshape(self._gemms, -1, hashes)

    def grouped(self, cut: Tensor) -> Grouped:
        """Those of one tile, kind of taps and segment with equal signatures."""
        limits = self._thresholds[0] if self._kind_of is None else self._thresholds[self._kind_of]
        bits = (cut @ self._planes).gt_(limits)  # 0 or 1
        parts = (bits @ self._powers).long().unbind(-1)
        signatures = parts[0]
        for place, part in enumerate(parts[1:], 1):
            signatures = signatures + (part << place * _EXACT_BITS)
        width = self._hashes
        keys = self._keys
        if not self._fits:
            # Numbers of the distinct ones are short.
            distinct, signatures = torch.unique(signatures, return_inverse=True)
            width = len(distinct).bit_length()
            keys = keys << width
        found, ids, sizes = torch.unique(
            (keys + signatures).flatten(), return_inverse=True, return_counts=True
        )
        return Grouped(ids=ids, keys=found >> width, sizes=sizes.to(cut.dtype))


def _sample(numbers: np.ndarray) -> np.ndarray:
    """Some of the numbers, drawn at random but always the same."""
    if numbers.size <= _SAMPLE:
        return numbers
    return np.sort(np.random.default_rng(0).choice(numbers, _SAMPLE, replace=False))
