"""The suites of policies that decide above the layers: on frames, and on tokens."""

import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from simulator.decisions.frames import KEEP, RUN, WARP, FrameDecisions
from simulator.decisions.moved_maps import pixel_strides
from simulator.decisions.tokens import DROPPED
from simulator.policies.policy import ReusePolicy
from simulator.running.above import Above
from simulator.running.decide import decide
from simulator.running.reuse_run import ReuseRun
from simulator.testing.reference import reference_moved
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch


class _AboveSuite:
    """What both keep.

    Attributes:
        policy: the policy.
        exact: the same with a setting that takes nothing off; `None` where there is none.
        bolder: settings that leave less and less work, after `policy`.
    """

    policy: ClassVar[ReusePolicy]
    exact: ClassVar[ReusePolicy | None] = None
    bolder: ClassVar[tuple[ReusePolicy, ...]] = ()

    def model(self) -> "torch.nn.Module":
        """The model, the same each time."""
        raise NotImplementedError

    def inputs(self) -> "torch.Tensor":
        """What it sees."""
        raise NotImplementedError

    def reference(self, trace: WorkloadTrace) -> np.ndarray:
        """The model's outputs under the policy, found the slow way."""
        raise NotImplementedError

    def captured(self) -> "tuple[torch.nn.Module, WorkloadTrace]":
        """The model and its dense run."""
        from workloads import capture

        model = self.model()
        return model, capture(model, self.inputs())

    def test_outputs_are_those_of_the_slow_way(self):
        model, trace = self.captured()
        run = decide(trace, self.policy, model=model)
        error = float(np.square(self.reference(trace) - trace.outputs).mean())
        assert run.output_mse == pytest.approx(error, rel=1e-3, abs=1e-9)

    def test_nothing_taken_off_is_dense(self):
        if self.exact is None:
            pytest.skip("no setting takes nothing off")
        model, trace = self.captured()
        run = decide(trace, self.exact, model=model)
        assert _macs(trace, run) == trace.macs and run.output_mse == 0

    def test_bolder_settings_leave_less_work(self):
        model, trace = self.captured()
        runs = [decide(trace, each, model=model) for each in (self.policy, *self.bolder)]
        work = [_macs(trace, run) for run in runs]
        assert trace.macs > work[0] and work == sorted(set(work), reverse=True)

    def test_description_survives_json(self):
        described = self.policy.describe()
        assert json.loads(json.dumps(described)) == described

    def test_it_is_known_to_be_above_layers(self):
        assert self.policy.is_above_layers


def _macs(trace: WorkloadTrace, run: ReuseRun) -> int:
    """Multiplications left."""
    made = run.decisions
    return sum(
        layer.gemm.macs if (own := made[layer.name]) is None else own.macs for layer in trace.layers
    )


class FrameSuite(_AboveSuite):
    """What every policy of frames keeps, on six frames of a small convolutional network."""

    def model(self) -> "torch.nn.Module":
        """Two convolutions and a classifier of random weights."""
        import torch
        from torch import nn

        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 5),
        ).eval()

    def inputs(self) -> "torch.Tensor":
        """Frames that all differ."""
        import torch

        return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def reference(self, trace: WorkloadTrace) -> np.ndarray:
        """Frame after frame, each layer's last result, and the input that it had, at hand."""
        from workloads.capturing.hook import run_with

        frames = Above(trace, self.policy).frames
        if frames is None:
            assert trace.outputs is not None
            return trace.outputs
        model, outputs = self.model(), []
        replaying = _FrameByFrame(trace, frames)
        for place, frame in enumerate(self.inputs()):
            replaying.place = place
            outputs.append(run_with(model, frame[None], replaying.answer).detach().numpy()[0])
        return np.stack([outputs[place] for place in frames.answers])

    def test_of_equal_frames_the_answers_are_equal(self):
        from workloads import capture

        model, still = self.model(), self.inputs()[:1].expand(6, -1, -1, -1).contiguous()
        run = decide(capture(model, still), self.policy, model=model)
        assert run.output_mse == pytest.approx(0, abs=1e-9)


class _FrameByFrame:
    """Answers of layers, one frame at a time.

    Args:
        trace: of all frames.
        frames: what is decided on them.

    Attributes:
        place: the frame.
    """

    def __init__(self, trace: WorkloadTrace, frames: FrameDecisions) -> None:
        self.place = 0
        self._frames, self._graph = frames, trace.graph
        self._last: dict[str, Any] = {}
        self._given: dict[str, Any] = {}
        motion = frames.motion
        size = (1, 1) if motion is None else motion.size
        self._strides = pixel_strides(trace.layers, trace.graph, size)

    def answer(self, call: Any) -> Any:
        """A layer's result in the frame."""
        name = call.layer.name
        if self._word(name) == KEEP:
            return self._last[name]
        if self._word(name) == WARP:
            return self._moved(self._last[name], self._strides[name][1])
        sources = list(self._graph.predecessors(name))
        words = {self._word(each) for each in sources}
        if name in self._strides and WARP in words and RUN not in words:
            return call.on_input(self._moved(self._given[name], self._strides[name][0]))
        self._given[name] = call.input.detach().clone()
        self._last[name] = call.dense().detach().clone()
        return self._last[name]

    def _word(self, name: str) -> int:
        """What a layer does in the frame."""
        made = self._frames.layers.get(name)
        return RUN if made is None else int(made[self.place])

    def _moved(self, maps: Any, strides: tuple[float, float]) -> Any:
        """A map of the key frame, moved the slow way."""
        import torch

        motion = self._frames.motion
        assert motion is not None
        found = reference_moved(maps.numpy()[0], motion, self.place, strides)
        return torch.from_numpy(found[None].astype(np.float32))


class TokenSuite(_AboveSuite):
    """What every policy of tokens keeps, on two images of a small transformer of 6 tokens.

    Its layers are `embed`, `blocks.0.query`, `.key`, `.value`, attention and `.out`, then those of
    `blocks.1`, and `head`, which reads token 0.
    """

    def model(self) -> "torch.nn.Module":
        """Two blocks of attention of random weights."""
        import torch
        from torch import nn

        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))

            def forward(self, tokens: "torch.Tensor") -> "torch.Tensor":
                query, key, value = (
                    layer(tokens).unflatten(-1, (2, 4)).transpose(1, 2)
                    for layer in (self.query, self.key, self.value)
                )
                mixed = nn.functional.scaled_dot_product_attention(query, key, value)
                return tokens + self.out(mixed.transpose(1, 2).flatten(2))

        class Transformer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = nn.Linear(5, 8)
                self.blocks = nn.ModuleList([Block(), Block()])
                self.head = nn.Linear(8, 3)

            def forward(self, given: "torch.Tensor") -> "torch.Tensor":
                tokens = self.embed(given)
                for block in self.blocks:
                    tokens = block(tokens)
                return self.head(tokens[:, 0])

        torch.manual_seed(0)
        return Transformer().eval()

    def inputs(self) -> "torch.Tensor":
        """Two images of six tokens."""
        import torch

        return 3 * torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1))

    def reference(self, trace: WorkloadTrace) -> np.ndarray:
        """All tokens computed, and those that are gone taken out of every softmax."""
        import torch

        from workloads.capturing.hook import run_with

        plan = Above(trace, self.policy).tokens
        gone: list[np.ndarray] = []

        def answer(call: Any) -> Any:
            if plan is not None and call.layer.name in plan.stands_for:
                gone.append(plan.stands_for[call.layer.name] == DROPPED)
            if call.layer.kind != "attention_scores" or not gone:
                return None
            scores = call.dense().detach().clone()
            for product in range(len(scores)):
                image = product * len(gone[-1]) // len(scores)
                for token in np.flatnonzero(gone[-1][image]):
                    scores[product, :, token] = -torch.inf
            return scores

        return run_with(self.model(), self.inputs(), answer).detach().numpy()
