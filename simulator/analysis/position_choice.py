"""Which output positions of which layers a model bears to have filled in, measured on inputs.

Measure on inputs that the choice is not judged on.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators import Accelerator, ConfigError
from accelerators.rules import refuse, show
from simulator.decisions.box import Decisions
from simulator.policies.perforation import MASKS, PerforationMask, PerforationReuse
from simulator.policies.policy import PerLayer, ReusePolicy
from simulator.policies.positions import FilledPositions
from simulator.policies.virtual_pooling import VirtualPooling
from simulator.running.forward import ReusedForward
from simulator.timing.pipeline import layer_timing
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch

IMPACT = "impact"
RATES = (0.75, 0.5, 0.35, 0.25, 0.15)


@dataclass(frozen=True, kw_only=True)
class GreedyStep:
    """One step of a choice, and where it leads.

    Attributes:
        layer: whose positions were taken off.
        policy: what decides it now.
        loss: of the model, on the inputs it was chosen by.
        correct: fraction of its answers that are right, likewise.
        time_left: of the layers chosen among, as a fraction of their dense time.
    """

    layer: str
    policy: FilledPositions
    loss: float
    correct: float
    time_left: float


class _Judge:
    """The loss of a model on a trace's inputs, by its labels or else by the classes it answers."""

    def __init__(self, trace: WorkloadTrace, model: "torch.nn.Module") -> None:
        import torch

        outputs = trace.outputs
        if trace.inputs is None or len(trace.inputs) != 1 or outputs is None or outputs.ndim < 2:
            raise ConfigError(
                "trace must hold inputs of one tensor and outputs with classes along dimension 1, "
                f"got {len(trace.inputs or ())} inputs and outputs of shape "
                f"{None if outputs is None else outputs.shape}; capture a classifier"
            )
        expected = outputs.argmax(axis=1) if trace.labels is None else trace.labels
        self.model = model
        self.frames = torch.from_numpy(np.array(trace.inputs[0]))
        self.classes = torch.from_numpy(expected.astype(np.int64))

    def outputs(self, policy: ReusePolicy, frames: "torch.Tensor") -> "torch.Tensor":
        """The model's, under a policy, in evaluation mode."""
        was_training = self.model.training
        self.model.eval()
        try:
            return ReusedForward(policy)(self.model, frames)
        finally:
            self.model.train(was_training)

    def loss_of(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """Cross-entropy; a class beyond the model's is of what is not labelled."""
        from torch.nn.functional import cross_entropy

        ignored = -100
        classes = self.classes.masked_fill(self.classes >= outputs.shape[1], ignored)
        return cross_entropy(outputs.float(), classes, ignore_index=ignored)

    def measure(self, policies: Mapping[str, ReusePolicy]) -> tuple[float, float]:
        """Loss, and fraction of right answers, with these layers' policies."""
        import torch

        with torch.no_grad():
            outputs = self.outputs(PerLayer(policies), self.frames)
            known = self.classes < outputs.shape[1]
            right = (outputs.argmax(dim=1) == self.classes)[known]
            return float(self.loss_of(outputs)), float(right.float().mean())


def perforation_impacts(
    trace: WorkloadTrace, model: "torch.nn.Module", policy: ReusePolicy | None = None
) -> dict[str, np.ndarray]:
    """How much each output position of each convolution matters to a model's loss.

    Figurnov et al. (NIPS 2016), section 3: the sum over channels of abs(y dLoss/dy) at a position,
    y the convolution's result there; the mean over the images.

    Args:
        trace: inputs; their labels, or else the model's own classes, make the loss.
        model: the captured model.
        policy: under which it runs, as rates grow; dense by default.

    Returns:
        Layer name -> float64 of the output's spatial shape, of each convolution that is a module
        which the model calls once.

    Raises:
        ConfigError: the trace holds no inputs, or no classes.
    """
    import torch

    judge = _Judge(trace, model)
    modules = dict(model.named_modules())
    found: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: Any, arguments: Any, output: torch.Tensor) -> None:
            values = output.detach().clone()  # what follows may write over it

            def keep(gradient: torch.Tensor) -> None:
                found[name] = (values * gradient).abs().sum(dim=1).mean(dim=0)

            output.register_hook(keep)

        return hook

    handles = [
        modules[layer.name].register_forward_hook(watch(layer.name))
        for layer in trace.layers
        if layer.kind == "conv" and layer.name in modules
    ]
    try:
        frames = judge.frames.clone().requires_grad_()
        loss = judge.loss_of(judge.outputs(policy or PerLayer({}), frames))
        torch.autograd.grad(loss, frames)
    finally:
        for handle in handles:
            handle.remove()
    return {name: each.double().numpy() for name, each in found.items()}


def greedy_perforation(
    trace: WorkloadTrace,
    model: "torch.nn.Module",
    *,
    time_left: float = 0.5,
    rates: Sequence[float] = RATES,
    masks: Sequence[str] = ("grid", IMPACT),
    accelerator: Accelerator | None = None,
    layers: Sequence[str] | None = None,
    most_lost: float | None = None,
    progress: bool | Callable[[GreedyStep], None] = True,
) -> PerLayer:
    """A mask for each convolution, so that together they take a fraction of the time.

    Figurnov et al. (NIPS 2016), section 3: until they do, the rate of one layer rises to the next
    of a list; the layer and mask are those with the least (loss added) / (time saved).

    Args:
        trace: inputs to choose by; see `perforation_impacts`.
        model: the captured model.
        time_left: of the convolutions' dense time, above 0 to 1.
        rates: fractions of positions that are computed, falling, each below 1.
        masks: kinds to choose from: those of `PerforationReuse`, and `impact`.
        accelerator: whose cycles are the time; multiplications by default.
        layers: names of the convolutions to choose among; all by default.
        most_lost: stop before more of the right answers are lost, as a fraction of all.
        progress: a bar, where stderr is a terminal, or what gets each step.

    Returns:
        A policy of each layer that is perforated, with its mask; others run dense.

    Raises:
        ConfigError: arguments break a rule, or the accelerator can't fill positions in.
    """
    _check(time_left=time_left, rates=rates, masks=masks)

    def masked(layer: Layer, computed: float, impacts: Mapping[str, np.ndarray]) -> list[Any]:
        made: list[Any] = []
        for mask in masks:
            if mask != IMPACT:
                made.append(PerforationReuse(computed=computed, mask=mask))
            elif layer.name in impacts:
                made.append(PerforationMask.of_largest(impacts[layer.name], computed))
        return made

    greedy = _Greedy(trace, model, accelerator, layers)
    dense, (loss, correct) = greedy.time, greedy.judge.measure({})
    rate_of = dict.fromkeys(greedy.layers, 0)
    with _told(progress, 1 - time_left) as tell:
        while greedy.time > time_left * dense:
            impacts = (
                perforation_impacts(trace, model, PerLayer(greedy.policies))
                if IMPACT in masks
                else {}
            )
            options = []
            for each, layer in greedy.layers.items():
                # A rate that saves no time is passed over.
                while rate_of[each] < len(rates):
                    made = masked(layer, rates[rate_of[each]], impacts)
                    saving = [(each, policy) for policy in made if greedy.saved(each, policy) > 0]
                    if saving:
                        options += saving
                        break
                    rate_of[each] += 1
            best = greedy.best(options, loss)
            if best is None or (most_lost is not None and correct - best.correct > most_lost):
                break
            loss = best.loss
            greedy.take(best)
            rate_of[best.layer] += 1
            tell(best)
    return PerLayer(greedy.policies)


def virtual_pooling_layers(
    trace: WorkloadTrace,
    model: "torch.nn.Module",
    *,
    most_lost: float = 0.05,
    stride: int = 2,
    layers: Sequence[str] | None = None,
    progress: bool | Callable[[GreedyStep], None] = True,
) -> PerLayer:
    """Virtual pooling in those layers that bear it.

    Each layer is pooled alone first: the loss added is its sensitivity. Layers are then pooled
    together, from the least sensitive on, as long as no more right answers are lost; what ViP
    (Chen et al., WACV 2020) chooses before it fine-tunes, as far as its abstract says.

    Args:
        trace: inputs to choose by; see `perforation_impacts`.
        model: the captured model.
        most_lost: of the right answers, as a fraction of all answers, 0 to 1.
        stride: of `VirtualPooling`.
        layers: names of the convolutions to choose among; all by default.
        progress: a bar, where stderr is a terminal, or what gets each step.

    Raises:
        ConfigError: as `perforation_impacts`, or no convolution is called so.
    """
    policy = VirtualPooling(stride=stride)
    greedy = _Greedy(trace, model, None, layers)
    loss, correct = greedy.judge.measure({})
    alone = {}
    for name, layer in greedy.layers.items():
        if policy.applies_to(layer) and policy.decided(layer) is not None:
            alone[name] = greedy.judge.measure({name: policy})[0] - loss
    with _told(progress, 1.0) as tell:
        for name in sorted(alone, key=lambda each: alone[each]):
            step = greedy.step(name, policy)
            if correct - step.correct > most_lost:
                break
            greedy.take(step)
            tell(step)
    return PerLayer(greedy.policies)


class _Greedy:
    """What is chosen so far, and what a further choice would make of it."""

    def __init__(
        self,
        trace: WorkloadTrace,
        model: "torch.nn.Module",
        accelerator: Accelerator | None,
        names: Sequence[str] | None,
    ) -> None:
        self.judge, self._accelerator = _Judge(trace, model), accelerator
        known = {each.name: each for each in trace.layers if each.kind == "conv"}
        unknown = [name for name in names or () if name not in known]
        if unknown:
            raise ConfigError(
                f"layers must be convolutions of the trace, got {show(unknown[0], str)}; use some "
                f"of {', '.join(known)}"
            )
        self.layers = {name: each for name, each in known.items() if names is None or name in names}
        self.policies: dict[str, ReusePolicy] = {}
        self._times = {name: self._time(each, None) for name, each in self.layers.items()}
        self._dense = self.time

    @property
    def time(self) -> int:
        """Of all layers to choose among, in cycles or multiplications."""
        return sum(self._times.values())

    def _time(self, layer: Layer, decisions: Decisions | None) -> int:
        if self._accelerator is not None:
            return layer_timing(layer, decisions, self._accelerator).cycles
        return layer.gemm.macs if decisions is None else decisions.macs

    def saved(self, name: str, policy: FilledPositions) -> int:
        """Time that a layer takes less under another policy than now."""
        return self._times[name] - self._time(self.layers[name], policy.decided(self.layers[name]))

    def step(self, name: str, policy: FilledPositions) -> GreedyStep:
        """What becomes of the model if a layer gets this policy as well."""
        loss, correct = self.judge.measure({**self.policies, name: policy})
        left = (self.time - self.saved(name, policy)) / self._dense
        return GreedyStep(layer=name, policy=policy, loss=loss, correct=correct, time_left=left)

    def best(
        self, options: Sequence[tuple[str, FilledPositions]], loss: float
    ) -> GreedyStep | None:
        """Of options that save time, the one with the least loss added for it."""
        found: list[tuple[float, GreedyStep]] = []
        for name, policy in options:
            step = self.step(name, policy)
            found.append(((step.loss - loss) / self.saved(name, policy), step))
        return min(found, key=lambda each: each[0])[1] if found else None

    def take(self, step: GreedyStep) -> None:
        """Choose it."""
        layer = self.layers[step.layer]
        self._times[step.layer] = self._time(layer, step.policy.decided(layer))
        self.policies[step.layer] = step.policy


def _check(*, time_left: float, rates: Sequence[float], masks: Sequence[str]) -> None:
    """Every rule of a choice of rates."""
    kinds = (*MASKS, IMPACT)
    broken = []
    if not 0 < time_left <= 1:
        broken.append(f"time_left must be above 0 to 1, got {show(time_left)}; try 0.5")
    falling = all(a > b for a, b in zip((1.0, *rates), rates, strict=False))
    if not rates or not falling or rates[-1] <= 0:
        broken.append(
            f"rates must fall from below 1 to above 0, got {show(rates)}; try {RATES}, fractions "
            "of positions that are computed"
        )
    if not masks or set(masks) - set(kinds):
        broken.append(f"masks must be of {', '.join(kinds)}, got {show(masks)}; name one at least")
    refuse(broken)


@contextmanager
def _told(
    progress: bool | Callable[[GreedyStep], None], whole: float
) -> Iterator[Callable[[GreedyStep], None]]:
    """Tell each step to the caller's function, to a bar if stderr is a terminal, or to nobody."""
    if callable(progress):
        yield progress
    elif progress and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("choosing positions", total=whole)

            def show_step(step: GreedyStep) -> None:
                told = f"{step.layer}: time {step.time_left:.2f}, right {step.correct:.3f}"
                bar.update(task, completed=1 - step.time_left, description=told)

            yield show_step
    else:
        yield lambda step: None
