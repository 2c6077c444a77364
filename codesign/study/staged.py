"""Accuracy on few images first, and on all of them only for what may still be on the front.

A run of the model under reuse takes time with the number of images. What a front found earlier
beats clearly on the first images is not run on the others.

Few images tell little: with 25 of 100 and a timing tolerance of 5 %, a search of 32 trials on
CifarNet gave up one, and took 124 s of CPU time where one on all images took 104 s. Had the latter
found its accuracies on 1,000 of 10,000 images, it could have given up 15 of the 28 trials after the
first batch (2026-11-22). So this is off by default, and meant for a thousand first images or more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from accelerators import ConfigError
from codesign.evaluation.evaluator import Evaluation, Evaluator
from codesign.evaluation.front import non_dominated
from codesign.evaluation.objective import Objective, directions_of, points_of
from codesign.evaluation.objectives import OBJECTIVES
from codesign.evaluation.threads import single_thread
from codesign.evaluation.workload import Workload
from codesign.space.checks import whole
from workloads import capture
from workloads.capturing.call_structure import CALL
from workloads.capturing.replaying import recorded_inputs, seed_of
from workloads.traces.judged import Judged

Values = Mapping[str, float]

# Standard normal quantile of the upper bound: 97.7 % of accuracies lie below it.
CONFIDENCE_QUANTILE = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class StagedEvaluator:
    """Judges a setting on the first images, then on all if `may_join` a front.

    Attributes:
        full: judges on all images.
        first: judges on the first of them.
    """

    full: Evaluator
    first: Evaluator

    @classmethod
    def of(cls, workload: Workload, full: Evaluator, images: int) -> StagedEvaluator:
        """Capture the model on the first images.

        Args:
            workload: what `full` was made of.
            full: judges on all images.
            images: how many come first, at least 1 and fewer than all.

        Raises:
            ConfigError: there are not that many, or no model that tells one image from another.
        """
        trace, model = workload.trace, full.model
        if problems := whole()["rule"](images, "first_images"):
            raise ConfigError(f"{problems[0]}; give None to judge every trial on all images")
        inputs, images_are_first = trace.inputs or (), images < trace.images
        images_are_first &= CALL not in trace.provenance
        tensors = (*inputs, *(() if trace.outputs is None else (trace.outputs,)))
        images_are_first &= all(x.ndim > 0 and len(x) == trace.images for x in tensors)
        if model is None or full.quality == "fidelity" or not inputs or not images_are_first:
            raise ConfigError(
                "first_images must be fewer than the workload's, of a workload with a model whose "
                f"inputs and outputs have images along the first dimension, got {images} of "
                f"{trace.images}; give None, or leave --first-images out"
            )
        judged = Judged.of(trace.provenance) or Judged()
        with single_thread():
            captured = capture(
                model,
                recorded_inputs(trace, images),
                labels=None if trace.labels is None else trace.labels[:images],
                score=trace.score if trace.score_function is None else trace.score_function,
                output=judged.output or None,
                classes_dimension=judged.classes_dimension,
                source=trace.provenance.get("source", ""),
                seed=seed_of(trace),
                images=images,
            )
        first = replace(
            full,
            trace=replace(captured, files=None),
            identity=f"{full.identity} first {images}",
        )
        return cls(full=full, first=first)

    def job(self, parameters: Mapping[str, Any], front: Sequence[Values]) -> dict[str, Any]:
        """What `__call__` takes: the setting, and the values of the front that it must join."""
        return {"parameters": dict(parameters), "front": [dict(values) for values in front]}

    def __call__(self, job: Mapping[str, Any]) -> Evaluation:
        """Judge a setting; `images` of the evaluation tells on how many."""
        if not job["front"]:
            return self.full(job["parameters"])
        early = self.first(job["parameters"])
        if early.values is None or not may_join(
            early.values,
            job["front"],
            self.first.trace.images,
            self.full.trace.images,
            self.full.objectives,
        ):
            return early
        late = self.full(job["parameters"])
        return replace(late, seconds=early.seconds + late.seconds)


def upper_accuracy(found: float, images: int, of_images: int) -> float:
    """What the accuracy on all images is at most, from that on the first of them.

    The images seen count as they are, the others by Wilson's score bound (J. Am. Stat. Assoc. 22,
    1927) at `CONFIDENCE_QUANTILE`.

    Args:
        found: fraction of the first images that are right.
        images: how many these are.
        of_images: how many there are in all.
    """
    z2 = CONFIDENCE_QUANTILE**2
    spread = math.sqrt(z2 * (found * (1 - found) / images + z2 / (4 * images**2)))
    bound = min(1.0, (found + z2 / (2 * images) + spread) / (1 + z2 / images))
    seen = images / of_images
    return seen * found + (1 - seen) * bound


def may_join(
    values: Values,
    front: Sequence[Values],
    images: int,
    of_images: int,
    objectives: Sequence[Objective] = OBJECTIVES,
) -> bool:
    """Whether a point judged on its first images may be on the front when judged on all.

    It may if no point of the front dominates the best that it can be: its `upper_accuracy`, and
    `Objective.hoped` of what hardware changes.
    """
    hoped = {
        each.name: upper_accuracy(values[each.name], images, of_images)
        if each.of_decisions
        else each.hoped(values[each.name])
        for each in objectives
    }
    points = points_of([hoped, *front], objectives)
    return bool(non_dominated(points, directions_of(objectives))[0])
