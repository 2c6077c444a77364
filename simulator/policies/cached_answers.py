"""Cached answers: an image whose feature is like that of an earlier one ends with its answer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators.rules import choose, integer, real, refuse, show, true_of, violations
from simulator.decisions.frame_evidence import Features
from simulator.decisions.frames import KEEP, RUN, FrameDecisions
from simulator.policies.frame_pixels import map_sums
from simulator.policies.policy import LayerState, ReusePolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace


@dataclass(frozen=True, kw_only=True)
class CachedAnswers(ReusePolicy):
    """Before a layer, an image's maps are summed up; where an earlier image's sums are alike, the
    model ends there with that image's answer.

    The cached CNN of Park and Kim (Applied Sciences 2019): the sums are the image's feature, and
    features are alike by their cosine. The most similar of the kept ones decides. Images that run
    to the end leave their feature at each of the layers, with their answer; where there is no place
    left, the oldest goes. Each batch starts with nothing kept.

    Maps after a ReLU are never negative, so that all cosines are large: useful thresholds lie close
    to 1, and the closer the fewer layers came before. Meant for models with one answer an image.
    Features are of what the dense model computes: no policy may change the layers before.

    Attributes:
        layers: names of layers before which an image may end, with commas or spaces between them.
        threshold: cosine from which two features are alike, 0 to 2; above 1 none are.
        entries: images whose features are kept, 1 to 65536.

    Raises:
        ConfigError: at construction, with every broken rule; at `decide()`, where a layer is
            unknown, or its input does not belong to one image each.
    """

    layers: str = field(
        metadata=true_of(
            lambda given: type(given) is str and bool(_names(given)),
            "name layers, with commas or spaces between them",
            "give the name of a layer at least",
        )
    )
    threshold: float = field(metadata=real(0, 2))
    entries: int = field(default=16, metadata=integer(1, 2**16))

    def __post_init__(self) -> None:
        """Check the fields."""
        refuse(violations(self, "CachedAnswers"))

    def applies_to(self, layer: Layer) -> bool:
        """To none: only frames are decided on."""
        return False

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """The layers must be there."""
        names = [layer.name for layer in layers]
        refuse(
            [
                f"CachedAnswers.layers must name layers, got {show(name, str)}; "
                f"{choose(name, names)}"
                for name in _names(self.layers)
                if name not in names
            ]
        )

    def frames(self, trace: WorkloadTrace) -> FrameDecisions | None:
        """Images end at a layer where they are like an earlier one; `None` of a single image."""
        if trace.images == 1:
            return None
        asked = _names(self.layers)
        names = [layer.name for layer in trace.layers]
        looked = [name for name in names if name in asked]
        features = {name: map_sums(trace, name, "CachedAnswers.layers") for name in looked}
        ends, answers = np.full(trace.images, len(names)), np.arange(trace.images)
        sums = {name: np.zeros(trace.images, np.int64) for name in looked}
        products = {name: np.zeros(trace.images, np.int64) for name in looked}
        kept: list[int] = []
        for image in range(trace.images):
            for name in looked:
                own = features[name][0]
                sums[name][image], products[name][image] = 1, 1 + len(kept)
                alike = _most_alike(own[image], own[kept], self.threshold)
                if alike is not None:
                    ends[image], answers[image] = names.index(name), kept[alike]
                    break
            else:
                kept = [*kept, image][-self.entries :]
        whole = ends == len(names)
        made = {
            name: np.where(ends > place, RUN, KEEP).astype(np.int8)
            for place, name in enumerate(names)
        }
        evidence = tuple(
            Features(
                layer=name,
                channels=features[name][0].shape[1],
                positions=features[name][1],
                sums=sums[name],
                products=products[name],
                kept=whole,
                places=min(self.entries, trace.images),
            )
            for name in looked
        )
        return FrameDecisions(frames=trace.images, layers=made, answers=answers, evidence=evidence)

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> None:
        """No decisions on the layers that run."""

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "cached_answers", **asdict(self)}


def _names(text: str) -> list[str]:
    """Names that a text has."""
    return text.replace(",", " ").split()


def _most_alike(feature: np.ndarray, kept: np.ndarray, threshold: float) -> int | None:
    """The most similar of `(entries, channels)` features, where its cosine reaches the threshold.

    Nothing is divided: a.b >= 0 and (a.b)^2 >= t^2 |a|^2 |b|^2. Equal features have the same sums
    in the same order, so that their cosine is 1 to the bit. A feature of zeros is like none.
    """
    if not len(kept):
        return None
    dots = (kept * feature).sum(axis=1)
    own, others = np.square(feature).sum(), np.square(kept).sum(axis=1)
    lengths = np.where(others > 0, others, np.inf)
    best = int(np.argmax(np.where(dots > 0, np.square(dots) / lengths, -1.0)))
    alike = dots[best] > 0 and dots[best] ** 2 >= threshold**2 * own * others[best]
    return best if alike else None


register(
    Technique(
        name="cached_answers",
        title="cached CNN",
        axis="frames",
        word="keep",
        grain="layer and image",
        rule="Before a layer the sums of an image's maps are compared with those of earlier "
        "images, by their cosine; where one is alike, the model ends there with that one's answer.",
        evidence="sums of maps",
        source="Park and Kim, Applied Sciences 2019",
        policy=CachedAnswers,
        units=("feature_cache",),
        published=("cached CNN",),
        choices={"threshold": (0.9, 0.95, 0.98, 0.99, 0.999)},
        start={"threshold": 0.98},
    )
)
