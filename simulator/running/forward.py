"""A network's forward pass under reuse, as similarity-aware training runs it."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from accelerators import ConfigError
from accelerators.rules import show
from simulator.policies.activations import Activations, non_finite
from simulator.policies.policy import (
    LayerState,
    Operands,
    ReadWeights,
    ReusePolicy,
    clustering_of,
)
from simulator.policies.thresholds import FOLLOWED
from simulator.running import executor
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch

    from simulator.running.on_device.replacing import DeviceClustering
    from simulator.running.on_device.signatures import FollowedThresholds
    from workloads.capturing.hook import GemmCall


class ReusedForward:
    """Runs a network with reused products; the backward pass is the dense one (straight-through).

    For `workloads.training.similarity_aware_training(reuse=...)`, and wherever else a network is
    called: `ReusedForward(policy)(model, frames)`. What the policy learns beforehand (LSH: the
    mean, learned hyperplanes), it learns of each layer when it first runs, from the rows it then
    gets, which earlier layers' reuse has changed already. A policy that keeps clusters over a
    stream doesn't fit: weights change between steps, and with them every kept result.

    Where a policy clusters whole pixels or rows (1x1 convolutions, linear layers and, with
    `look_once`, larger kernels) by their signatures, or by leaders or neighbours of tensors that
    are not on the CPU, it is run by operations of PyTorch on the device where the layer's tensors
    are, otherwise by compiled loops on the CPU; the clusters are the same but for rounding. Under
    `torch.autocast` it decides in float32.

    Thresholds of signatures that are found on the device follow the activations of a model in
    training mode, step by step, as batch normalisation's estimates do; in evaluation mode they
    stay. All else that is learned stays until `recalibrate`.

    While a network learns on 8-bit grids, whose ranges move, decisions are made on floating-point
    rows that lie on these grids; in a network that is quantised they are made on its integers.

    Args:
        policy: decides on every layer.
        trace: of the model, which tells what follows each layer; without it nobody knows.

    Raises:
        ConfigError: the policy decides above the layers, on frames or tokens.
    """

    def __init__(self, policy: ReusePolicy, *, trace: WorkloadTrace | None = None) -> None:
        if policy.is_above_layers:
            raise ConfigError(
                "ReusedForward.policy must decide on layers alone, got "
                f"{show(policy.describe())}, which also decides on frames or tokens; use decide()"
            )
        self._policy = policy
        self._trace = trace
        self._known = {} if trace is None else {layer.name: layer for layer in trace.layers}
        self._states: dict[str, LayerState] = {}
        self._checked: dict[str, Layer] = {}
        self._on_device: dict[tuple[Layer, torch.device], DeviceClustering | None] = {}
        self._followed: dict[str, FollowedThresholds] = {}
        self._thresholds: dict[str, torch.Tensor] = {}
        self._unchecked: list[tuple[Layer, torch.Tensor]] = []
        self._is_training = False
        self._kept: int | torch.Tensor = 0
        self._total = 0

    def __call__(self, model: "torch.nn.Module", frames: "torch.Tensor") -> "torch.Tensor":
        """The outputs of the model, in the mode (training or evaluation) it is in.

        Args:
            model: any module that `workloads.run_with` runs.
            frames: the images of one batch along the first dimension.

        Raises:
            ConfigError: the policy doesn't fit a layer, or keeps clusters over a stream, or
                activations are NaN or infinite.
            TraceError: as `workloads.run_with`.
        """
        from workloads.capturing.hook import run_with  # the only part that needs PyTorch

        known = bool(self._checked)
        self._is_training, self._unchecked = model.training, []
        try:
            outputs = run_with(model, frames, self.answer, training=model.training)
        finally:
            self._is_training = False
        for layer, is_finite in self._unchecked:
            if not bool(is_finite):
                raise non_finite(layer)
        if not known:
            self._policy.check_layers(list(self._checked.values()))  # now patterns can be judged
        return outputs

    @property
    def states(self) -> dict[str, LayerState]:
        """What the policy has learned of each layer so far, for `decide(calibration=...)`."""
        followed = {name: {FOLLOWED: each.cpu().numpy()} for name, each in self._thresholds.items()}
        return {**self._states, **followed}

    def recalibrate(self) -> None:
        """Learn from the next batch anew what does not follow the activations; count anew."""
        self._states = {name: each for name, each in self.states.items() if name in self._followed}
        self._on_device.clear()
        self._kept = self._total = 0

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """What thresholds follow, and they themselves, as `LAYER.PART`; for a checkpoint."""
        return {
            f"{name}.{part}": tensor
            for name, each in self._followed.items()
            for part, tensor in {**vars(each), FOLLOWED: self._thresholds[name]}.items()
        }

    def load_state_dict(self, state: "Mapping[str, torch.Tensor]") -> None:
        """Go on from what `state_dict` returned.

        Raises:
            KeyError: it lacks a part.
        """
        from simulator.running.on_device.signatures import FollowedThresholds

        self.recalibrate()
        for name in {key.rpartition(".")[0] for key in state}:
            parts = {each: state[f"{name}.{each}"] for each in ("centre", "variance", FOLLOWED)}
            self._thresholds[name] = parts.pop(FOLLOWED)
            self._followed[name] = FollowedThresholds(**parts)
        self._states = self.states

    def removed_fraction(self) -> float | None:
        """1 - |X_c| / |X| over the elements of all reused rows since `recalibrate`; None of none.

        Treasure's compression ratio: X are the layers' inputs as rows, X_c their new centroids.
        """
        return 1 - int(self._kept) / self._total if self._total else None

    def describe(self) -> dict[str, Any]:
        """The policy as plain values."""
        return self._policy.describe()

    def answer(self, call: "GemmCall") -> "torch.Tensor | None":
        """A layer's result under reuse, `None` where it runs dense: what `run_with` asks for.

        Args:
            call: the layer's product as the model asks for it, with its activations and weights.

        Raises:
            ConfigError: as a call of the whole model.
        """
        layer, policy = self._layer(call), self._policy
        if layer.name not in self._checked:
            policy.policy_of(layer.name).check_layers([layer])
            self._checked[layer.name] = layer
        if not policy.applies_to(layer):
            return None
        if policy.needs_calibration(layer) and layer.name not in self._states:
            rows = Activations(layer, call.given()).rows
            weights = Operands(read=call.weights)
            if self._trace is not None:
                name = policy.weights_for(layer)
                read = call.weights if name == layer.name else None
                weights = operands_of(self._trace, name, read=read)
            self._states[layer.name] = _beside(policy.calibrate, layer, rows, weights)
        state = self._states.get(layer.name, {})
        here = self._device_clustering(layer, state, call.input.device)
        if here is not None:
            self._follow(layer, here, call.input)
            replaced = here.replaced(call.input)
            self._unchecked.append((layer, replaced.is_finite))
            self._count(layer, replaced.kept_elements)
            return call.on_input(replaced.values)
        given = Activations(layer, call.given())
        made = executor.execute(
            policy, layer, given, state, None, call.weights, wants_result=True, centroids=False
        )
        if made.memory is not None:
            raise ConfigError(
                f"policy of layer {layer.name!r} must keep nothing over a stream, got "
                f"{policy.describe()}; use scope='image' or 'batch'"
            )
        if made.decisions is None or made.result is None:
            return None
        self._count(layer, made.decisions.macs // layer.gemm.n)
        return call.from_result(given.rescaled(made.result))

    def _layer(self, call: "GemmCall") -> Layer:
        """The layer with what follows it, if the trace knows."""
        known = self._known.get(call.layer.name)
        return call.layer if known is None or known.gemm != call.layer.gemm else known

    def _follow(self, layer: Layer, here: "DeviceClustering", given: "torch.Tensor") -> None:
        """Let a layer's thresholds follow its input in training; else they stay where they are."""
        if not here.follows:
            return
        followed = self._followed.get(layer.name)
        if self._is_training:
            followed = self._followed[layer.name] = here.take_in(given, followed)
        if followed is not None:
            self._thresholds[layer.name] = here.follow(followed)

    def _count(self, layer: Layer, kept: "int | torch.Tensor") -> None:
        """Count the elements of a layer's rows, and of its new centroids."""
        self._kept += kept
        self._total += layer.gemm.count * layer.gemm.m * layer.gemm.k

    def _device_clustering(
        self, layer: Layer, state: LayerState, device: "torch.device"
    ) -> "DeviceClustering | None":
        """How a layer is clustered where its tensors are; `None` where compiled loops do it."""
        from simulator.running.on_device.replacing import DeviceClustering, is_on_device

        key = layer, device
        if key not in self._on_device:
            clustering = clustering_of(self._policy, layer, state)
            found = None
            if clustering is not None and is_on_device(clustering, layer, device):
                found = DeviceClustering(layer, clustering, device)
            self._on_device[key] = found
        return self._on_device[key]


def operands_of(trace: WorkloadTrace, name: str, *, read: ReadWeights | None = None) -> Operands:
    """A layer's weights, and what its product is scaled and shifted by, as a trace has them.

    Args:
        trace: of the model.
        name: of the layer.
        read: gives the weights, where they are not the trace's.
    """
    return Operands(
        read=read or partial(trace.weights, name), read_affine=partial(trace.affine, name)
    )


def _beside(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a thread of its own.

    Hyperplanes are learned by gradient, and gradients don't exist below autograd, where the hook
    runs; PyTorch keeps such states by thread.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(function, *arguments).result()
