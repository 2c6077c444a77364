"""What is decided above the layers, frames and tokens, as it meets each layer's product.

Shapes stay: rows of frames that do not run are kept from the frame before, or moved from the key
frame, and those of tokens that are gone are not computed, which the softmax then looks past.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse, show
from simulator.decisions.box import Decisions
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.frames import WARP, FrameDecisions
from simulator.decisions.moved_maps import has_positions
from simulator.decisions.rows import KeptRows
from simulator.decisions.tokens import TokenPlan
from simulator.policies.policy import ReusePolicy
from simulator.running.moving import Moving
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

_BATCHED = ("batched_matmul", "attention_scores", "attention_values")


class Above:
    """The decisions on frames and the token plan of one run.

    Args:
        trace: the workload.
        policy: decides on both.

    Attributes:
        frames: in which each layer runs, if that is decided.
        tokens: the plan, likewise.

    Raises:
        ConfigError: they are of other frames or layers, or nothing here can run them.
    """

    def __init__(self, trace: WorkloadTrace, policy: ReusePolicy) -> None:
        self.frames, self.tokens = policy.frames(trace), policy.tokens(trace)
        self._images = trace.images
        self._gone: dict[str, np.ndarray] = {}
        broken = _broken_frames(trace, self.frames) + _broken_tokens(trace, self.tokens)
        refuse(broken)
        self._moving: Moving | None = None
        if self.frames is not None and self.frames.motion is not None:
            self._moving = Moving(trace, self.frames)
            evidence = (*self.frames.evidence, self._moving.warps)
            self.frames = replace(self.frames, evidence=evidence)
        gone = None
        for layer in trace.layers:
            if self.tokens is not None and layer.name in self.tokens.stands_for:
                gone = self.tokens.stands_for[layer.name] == DROPPED
            if gone is not None and gone.any() and _holds_tokens(layer, gone.shape):
                self._gone[layer.name] = gone

    @property
    def key(self) -> str:
        """Tells frames and tokens apart from any others."""
        digest = hashlib.sha256()
        frames, tokens = self.frames, self.tokens
        named = [("answers", None if frames is None else frames.answers)]
        named += [] if frames is None else list(frames.layers.items())
        motion = None if frames is None else frames.motion
        named += [] if motion is None else [("vectors", motion.vectors), ("keys", motion.keys)]
        named += [] if tokens is None else list(tokens.stands_for.items())
        for name, array in named:
            if array is not None:
                digest.update(f"{name} {array.shape} ".encode() + array.astype(np.int64).tobytes())
        return digest.hexdigest()

    def touches(self, layer: Layer) -> bool:
        """Whether anything of a layer is not computed."""
        return layer.name in self._gone or self._waits(layer)

    def moves_input(self, layer: Layer) -> bool:
        """Whether a layer that runs gets maps of key frames, moved by motion."""
        return self._moving is not None and self._moving.moves_input(layer)

    def given(self, layer: Layer, given: np.ndarray) -> np.ndarray:
        """A layer's input, with maps that are moved where there are such."""
        return given if self._moving is None else self._moving.moved_input(layer, given)

    def leaves_whole_frames(self, layer: Layer) -> bool:
        """Whether all that is not computed of a layer are frames in which it does not run."""
        return self._waits(layer) and layer.name not in self._gone

    def frames_that_run(self, layer: Layer) -> np.ndarray:
        """Numbers of the frames in which a layer runs; some do not."""
        assert self.frames is not None
        return np.flatnonzero(self.frames.runs(layer.name))

    def in_frames_that_run(self, layer: Layer, result: np.ndarray) -> np.ndarray:
        """A product of the frames in which a layer runs, in its place among all."""
        gemm = layer.gemm
        whole = np.zeros((gemm.count, gemm.m, gemm.n), np.float32)
        frames = self.frames_that_run(layer)
        by_frame = _by_frame(layer, self._images, whole)
        if layer.row_images == self._images:
            own = result.reshape(gemm.count, len(frames), -1, gemm.n).swapaxes(0, 1)
        else:
            own = result.reshape(len(frames), -1, gemm.m, gemm.n)
        by_frame[frames] = own
        return whole

    def _waits(self, layer: Layer) -> bool:
        """Whether a layer does not run in every frame."""
        return self.frames is not None and not self.frames.runs(layer.name).all()

    def joined(self, layer: Layer, made: Decisions | None) -> Decisions | None:
        """A layer's decisions with what is decided above it.

        Raises:
            ConfigError: both decide on the same rows, columns or depth in ways that do not join.
        """
        if not self.touches(layer):
            return made
        gemm = layer.gemm
        made = Decisions(layer=layer.name, gemm=gemm) if made is None else made
        kept = np.zeros((gemm.count, gemm.m), bool)
        if self.frames is not None:
            by_frame = _by_frame(layer, self._images, kept)
            by_frame[~self.frames.runs(layer.name)] = True
        columns = depth = None
        gone = self._gone.get(layer.name)
        if gone is not None:
            kept |= np.repeat(gone, kept.size // gone.size, axis=0).reshape(kept.shape)
            columns, depth = _without_tokens(layer, gone)
        for name, above, own in (("columns", columns, made.columns), ("depth", depth, made.depth)):
            if above is not None and own is not None:
                raise ConfigError(
                    f"policy of layer {layer.name!r} must leave {name} to the token plan, got "
                    f"{name} too; decide on one of them"
                )
        return replace(
            made,
            rows=_join_rows(layer, made, kept),
            columns=columns or made.columns,
            depth=depth or made.depth,
        )

    def finished(self, layer: Layer, result: np.ndarray) -> np.ndarray:
        """A product whose rows of frames that did not run hold the result of the frame before, or
        that of the key frame, moved."""
        if self.frames is None or not self._waits(layer):
            return result
        sources = self.frames.sources(layer.name)
        by_frame = _by_frame(layer, self._images, result)
        by_frame[:] = by_frame[sources]
        if self._moving is not None:
            self._moving.move_results(layer, by_frame)
        return result

    def masked(self, layer: Layer, result: np.ndarray) -> np.ndarray:
        """Scores of tokens that are gone at minus infinity; other results as they are."""
        gone = self._gone.get(layer.name)
        if gone is None or layer.kind != "attention_scores":
            return result
        whose = np.repeat(gone, len(result) // len(gone), axis=0)
        return np.where(whose[:, None], np.float32(-np.inf), result)

    def answers(self, outputs: np.ndarray | None) -> np.ndarray | None:
        """Each frame's answer: its own, or the one that is remembered.

        Raises:
            ConfigError: the outputs are not one a frame.
        """
        frames = self.frames
        if frames is None or outputs is None or (frames.answers == np.arange(self._images)).all():
            return outputs
        if outputs.shape[:1] != (frames.frames,):
            raise ConfigError(
                f"model must answer each of {frames.frames} frames for an answer to be remembered, "
                f"got outputs of shape {outputs.shape}; let every frame give its own"
            )
        return outputs[frames.answers]


def _broken_frames(trace: WorkloadTrace, frames: FrameDecisions | None) -> list[str]:
    """What of decisions on frames is not this trace's, or can't be run."""
    if frames is None:
        return []
    if not isinstance(frames, FrameDecisions):
        return [f"policy.frames() must give FrameDecisions or None, got {show(frames)}; use one"]
    if frames.frames != trace.images:
        return [
            f"policy.frames() must be of the trace's {trace.images} images, got {frames.frames}; "
            "decide on this trace"
        ]
    known = {layer.name: layer for layer in trace.layers}
    broken = _unknown("policy.frames().layers", frames.layers, list(known))
    for name, made in frames.layers.items():
        layer = known.get(name)
        if layer is not None and (made == WARP).any() and not has_positions(layer):
            broken.append(
                f"policy.frames().layers[{name!r}] must be a two-dimensional convolution to be "
                f"moved, got {layer.kind}; keep the frame before"
            )
        if layer is not None and not frames.runs(name).all() and not _tells_frames(layer, trace):
            broken.append(
                f"policy.frames().layers[{name!r}] must be a layer whose rows belong to one frame "
                "each, got one where they can't be told apart; let it run in every frame"
            )
    return broken


def _broken_tokens(trace: WorkloadTrace, tokens: TokenPlan | None) -> list[str]:
    """Likewise of a token plan."""
    if tokens is None:
        return []
    if not isinstance(tokens, TokenPlan):
        return [f"policy.tokens() must give a TokenPlan or None, got {show(tokens)}; use one"]
    names = [layer.name for layer in trace.layers]
    broken = _unknown("policy.tokens().stands_for", tokens.stands_for, names)
    for name, numbers in tokens.stands_for.items():
        where = f"policy.tokens().stands_for[{name!r}]"
        if len(numbers) != trace.images:
            broken.append(
                f"{where} must be of the trace's {trace.images} images, got {len(numbers)}; "
                "decide on this trace"
            )
        if ((numbers != DROPPED) & (numbers != np.arange(numbers.shape[1]))).any():
            broken.append(
                f"{where} must keep or drop tokens, got merged ones, whose means nothing here "
                "computes; drop them"
            )
    return broken


def _unknown(where: str, given: Iterable[str], names: list[str]) -> list[str]:
    """Names of no layer."""
    return [
        f"{where} must name layers, got {show(name, str)}; layers are {', '.join(names)}"
        for name in given
        if name not in names
    ]


def _tells_frames(layer: Layer, trace: WorkloadTrace) -> bool:
    """Whether each row belongs to one frame."""
    if layer.row_images == trace.images:
        return True
    return layer.kind in _BATCHED and layer.gemm.count % trace.images == 0


def _by_frame(layer: Layer, images: int, array: np.ndarray) -> np.ndarray:
    """A view of `(count, m, ...)` with frames along the first axis."""
    count, m, *rest = array.shape
    if layer.row_images == images:
        return array.reshape(count, images, m // images, *rest).swapaxes(0, 1)
    return array.reshape(images, count // images, m, *rest)


def _holds_tokens(layer: Layer, shape: tuple[int, int]) -> bool:
    """Whether a product's rows are the tokens of all images."""
    images, tokens = shape
    gemm = layer.gemm
    match layer.kind:
        case "attention_scores":
            return gemm.m == gemm.n == tokens and gemm.count % images == 0
        case "attention_values":
            return gemm.m == gemm.k == tokens and gemm.count % images == 0
        case _:
            return gemm.count == 1 and layer.row_images == images and gemm.m == images * tokens


def _without_tokens(
    layer: Layer, gone: np.ndarray
) -> tuple[ColumnDecisions | None, DepthDecisions | None]:
    """What attention saves beside rows: columns of scores, and depth of values.

    Where images lose different tokens, a product of several has no common columns or order: scores
    are skipped one by one, and values are summed up whole.
    """
    gemm, same = layer.gemm, bool((gone == gone[0]).all())
    if layer.kind == "attention_scores":
        if same:
            own = np.where(gone[:1], DROPPED, np.arange(gemm.n))
            return ColumnDecisions(gemm=gemm, sources=own), None
        living = np.repeat(~gone, gemm.count // len(gone), axis=0)
        terms = (living * gemm.k).astype(np.int32)[:, None]
        return None, DepthDecisions(gemm=gemm, terms=terms)
    if layer.kind == "attention_values" and same:
        terms = np.full((1, 1, 1), np.count_nonzero(~gone[0]), np.int32)
        order = np.argsort(gone[0], kind="stable")
        return None, DepthDecisions(gemm=gemm, terms=terms, order=order, zeroed=False)
    return None, None


def _join_rows(layer: Layer, made: Decisions, kept: np.ndarray) -> KeptRows:
    """Rows that a policy keeps, and those that are not computed for what is decided above."""
    own = made.rows
    if own is not None and not isinstance(own, KeptRows):
        raise ConfigError(
            f"policy of layer {layer.name!r} must leave rows to frames and tokens, got "
            f"{type(own).__name__} too; decide on one of them"
        )
    gemm = layer.gemm
    nothing = np.broadcast_to(np.float32(0), (gemm.count, gemm.m, gemm.n))
    if own is None:
        return KeptRows(gemm=gemm, kept=kept, results=nothing)
    if own.results is None and not own.kept.any():
        own = replace(own, results=nothing)
    return replace(own, kept=kept | own.kept)
