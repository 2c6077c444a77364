"""What a run under a policy decided, and how good its answers are."""

from dataclasses import dataclass, field

import numpy as np

from accelerators.rules import refuse
from simulator.decisions.box import Decisions
from simulator.decisions.frames import FrameDecisions
from simulator.decisions.tokens import TokenPlan
from simulator.results.intervals import Interval
from simulator.running.stream_memory import StreamMemory
from workloads.traces.trace import WorkloadTrace


@dataclass(frozen=True, kw_only=True)
class ReuseRun:
    """Every layer's decisions on one stream of inputs, and what they did to the outputs.

    Attributes:
        policy: the policy, as `ReusePolicy.describe` gives it.
        images: inputs in the batch.
        decisions: layer name -> its decisions, `None` where the layer runs dense.
        relative_mse: layer name -> mean squared error of the layer's GEMM result against the dense
            result *on the same input*, divided by the mean square of the dense result. Only
            layers with decisions; empty if it was not asked for.
        centroid_error: layer name -> Err_c, the sum of squared distances of the layer's
            sub-vectors to what stands for them (Deep Reuse, section IV), on the layer's input
            under reuse. Likewise.
        calibrated_on: what the policy learned from beforehand: the judged inputs themselves, which
            flatters it, or inputs given for it, and whether under reuse; `None` if it learned
            nothing.
        accuracy: the trace's `score`: by default the fraction of answers whose class is the label;
            `None` without labels, if the model was not run, or if its judged output has no classes,
            see `workloads.traces.judged.classes_in`.
        dense_accuracy: the same of the dense model.
        agreement: fraction of images (of answers, where an image has several, one a pixel or
            position) whose class is the dense model's; `None` if the model was not run, or its
            judged output has no classes that could be compared.
        answers: `(images,)`, `(images, height, width)` or so, the class of each answer under reuse;
            `None` likewise.
        output_mse: mean squared difference to the dense model's outputs; `None` if the model was
            not run, or they are not finite under reuse.
        output_error: the same over the mean square of the dense model's; `None` likewise.
        unjudged: why the agreement or the accuracy is not known though the model was run; empty
            where they are.
        intervals: 95 % confidence intervals by name, see `simulator.results.intervals`; empty
            likewise.
        memory: what the policy keeps for the stream's next batch; `None` if it keeps nothing.
        frames: in which frames each layer ran, which the decisions hold as kept rows; `None` where
            all did.
        tokens: which tokens lived on, likewise; `None` where all did.
    """

    policy: dict
    images: int
    decisions: dict[str, Decisions | None]
    relative_mse: dict[str, float]
    centroid_error: dict[str, float] = field(default_factory=dict)
    calibrated_on: str | None = None
    accuracy: float | None = None
    dense_accuracy: float | None = None
    agreement: float | None = None
    answers: np.ndarray | None = field(default=None, repr=False, compare=False)
    output_mse: float | None = None
    intervals: dict[str, Interval] = field(default_factory=dict)
    output_error: float | None = None
    unjudged: str = ""
    memory: StreamMemory | None = None
    frames: FrameDecisions | None = field(default=None, repr=False)
    tokens: TokenPlan | None = field(default=None, repr=False)

    def check_made_on(self, trace: WorkloadTrace, path: str) -> None:
        """The decisions must have been made on this trace; `path` is how messages call the run.

        Raises:
            ConfigError: with every layer on which they were not.
        """
        made = {name: each and each.gemm for name, each in self.decisions.items()}
        broken = [
            f"{path} must hold decisions on layer {layer.name!r} of {layer.gemm}, got "
            f"{made.get(layer.name, 'none')}; make them with decide() on this trace"
            for layer in trace.layers
            if made.get(layer.name, ...) not in (None, layer.gemm)
        ]
        if self.images != trace.images:
            broken.append(
                f"{path} must hold decisions on {trace.images} images, got {self.images}; "
                "make them with decide() on this trace"
            )
        refuse(broken)
