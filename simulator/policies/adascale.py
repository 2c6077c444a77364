"""AdaScale: the size of the next frame, chosen by what this one shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from accelerators import ConfigError
from accelerators.rules import show
from simulator.decisions.frame_evidence import Features
from simulator.policies.frame_pixels import map_sums
from simulator.policies.technique import Technique, register
from workloads.traces.trace import WorkloadTrace


def least_loss(losses: np.ndarray, sizes: Sequence[int], tolerance: float = 0.0) -> np.ndarray:
    """The smallest size of each frame whose loss is the least one, or little more.

    Args:
        losses: `(frames, sizes)`, of each frame at each size.
        sizes: of the shorter side, say, in pixels.
        tolerance: by which a loss may be larger than the frame's least.

    Returns:
        `(frames,)` int64, places in `sizes`.
    """
    fits = losses <= losses.min(axis=1, keepdims=True) + tolerance
    return np.argmin(np.where(fits, np.asarray(sizes, np.float64), np.inf), axis=1)


def looks_at_maps(trace: WorkloadTrace, layer: str, frames: int) -> Features:
    """What the regressor looks at in frames of one size: each map is summed up, and the sums are
    multiplied by the weights, the only vector that is kept.

    Args:
        trace: of that size.
        layer: whose input is looked at.
        frames: that have the size.

    Raises:
        ConfigError: the layer's input does not belong to one image each.
    """
    sums, positions = map_sums(trace, layer, "looks_at_maps")
    each = np.ones(frames, np.int64)
    return Features(
        layer=layer,
        channels=sums.shape[1],
        positions=positions,
        sums=each,
        products=2 * each,  # the unit multiplies it by itself, too
        kept=np.arange(frames) < 0,
        places=1,
    )


def map_means(trace: WorkloadTrace, layer: str) -> np.ndarray:
    """`(images, channels)` float64, means over each map of a layer's input: features of frames.

    Raises:
        ConfigError: the layer's input does not belong to one image each.
    """
    sums, positions = map_sums(trace, layer, "map_means")
    return sums / positions


def sizes_by_texture(frames: np.ndarray, sizes: Sequence[int], threshold: float) -> np.ndarray:
    """Sizes by a rule that needs no training: as small as keeps what the frame before shows.

    A frame is made smaller and larger again, bilinearly; the mean squared difference to itself is
    the texture that the size loses. The first frame has the largest size. No unit here looks at
    it, so that its cost is not modelled.

    Args:
        frames: `(images, channels, height, width)` pixels at the largest size.
        sizes: in pixels, the largest among them; a frame of `s` has `s / max(sizes)` of each side.
        threshold: mean squared difference that may be lost, in the frames' units, squared.

    Returns:
        `(images,)` int64, places in `sizes`.
    """
    _check_sizes("sizes_by_texture", sizes)
    largest = max(sizes)
    order = np.argsort(sizes)
    chosen = np.full(len(frames), int(order[-1]), np.int64)
    for image in range(1, len(frames)):
        before = np.asarray(frames[image - 1], np.float32)
        for place in order[:-1]:
            share = sizes[place] / largest
            small = ndimage.zoom(before, (1, share, share), order=1)
            back = [whole / part for whole, part in zip(before.shape, small.shape, strict=True)]
            again = ndimage.zoom(small, back, order=1)
            if np.square(again - before).mean(dtype=np.float64) <= threshold:
                chosen[image] = place
                break
    return chosen


@dataclass(frozen=True, kw_only=True)
class ScaleRegressor:
    """The size of the next frame by a linear function of this one's features.

    AdaScale (Chin et al., MLSys 2019): from features of frame t, at the size that it has, the
    logarithm of the best size over that one is told; frame t + 1 has the nearest of the sizes to
    what follows. The paper's regressor is a convolution, means over each map and a linear layer on
    features of its detector; here means over each map are enough of a feature, and the linear layer
    is fitted by ridge regression.

    Attributes:
        sizes: that a frame may have, in pixels.
        weights: `(features,)` float64.
        bias: added.
    """

    sizes: tuple[int, ...]
    weights: np.ndarray = field(repr=False)
    bias: float

    @classmethod
    def fit(
        cls,
        features: Mapping[int, np.ndarray],
        best: np.ndarray,
        *,
        ridge: float = 1.0,
    ) -> "ScaleRegressor":
        """Learn from frames that were seen at every size.

        Args:
            features: size -> `(frames, features)`, such as means over the maps of a layer's input.
            best: `(frames,)` int64, the place of each frame's best size among the keys.
            ridge: penalty of the squared weights, on features of unit variance; above 0.

        Raises:
            ConfigError: the features are not of the same frames.
        """
        sizes = tuple(features)
        _check_sizes("ScaleRegressor.fit", sizes)
        shapes = {each.shape for each in features.values()}
        if len(shapes) > 1 or len(best) != next(iter(shapes))[0]:
            raise ConfigError(
                f"ScaleRegressor.fit must have features of {len(best)} frames at every size, got "
                f"shapes {sorted(shapes)}; give the same frames at each"
            )
        wanted = np.log(np.asarray(sizes, np.float64))
        given = np.concatenate([features[size] for size in sizes]).astype(np.float64)
        target = np.concatenate([wanted[best] - np.log(size) for size in sizes])
        mean, spread = given.mean(axis=0), given.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        scaled = (given - mean) / spread
        square = scaled.T @ scaled + ridge * np.eye(scaled.shape[1])
        weights = np.linalg.solve(square, scaled.T @ (target - target.mean())) / spread
        return cls(sizes=sizes, weights=weights, bias=float(target.mean() - mean @ weights))

    def choose(self, features: Mapping[int, np.ndarray]) -> np.ndarray:
        """Sizes of frames in a row; each is chosen by the one before, at the size that it had.

        Args:
            features: size -> `(frames, features)`, of which only those of the size that a frame
                has are read. The first frame has the largest size.

        Returns:
            `(frames,)` int64, places in `sizes`.
        """
        logs = np.log(np.asarray(self.sizes, np.float64))
        frames = len(next(iter(features.values())))
        chosen = np.full(frames, int(np.argmax(logs)), np.int64)
        for frame in range(1, frames):
            had = chosen[frame - 1]
            told = features[self.sizes[had]][frame - 1] @ self.weights + self.bias
            chosen[frame] = int(np.argmin(np.abs(logs - (logs[had] + told))))
        return chosen


def _check_sizes(path: str, sizes: Sequence[int]) -> None:
    """Sizes are different numbers of pixels."""
    if not sizes or len({*sizes}) != len(sizes) or any(size < 1 for size in sizes):
        raise ConfigError(
            f"{path} sizes must be different numbers of pixels, got {show(list(sizes))}; give "
            "each once"
        )


register(
    Technique(
        name="adascale",
        title="AdaScale",
        axis="model",
        word="rewrite",
        grain="frame",
        rule="A frame's size is chosen by features of the frame before, so that its loss is the "
        "least; the same network runs at each size.",
        evidence="means of maps, or the texture that a smaller frame loses",
        source="Chin et al., AdaScale, MLSys 2019",
        how="capture the model at each size; choose by sizes_by_texture or ScaleRegressor; "
        "simulator.simulate_variants runs the schedule",
        units=("feature_cache",),
        trained="a linear regressor, by ScaleRegressor.fit; the network at all its sizes",
        published=("AdaScale",),
    )
)
