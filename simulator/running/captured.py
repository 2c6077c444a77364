"""Running the model that a trace was captured of."""

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators import ConfigError
from workloads.errors import InputError, TraceError, told
from workloads.traces.judged import Judged, check_outputs_finite
from workloads.traces.layer import Gemm, Layer
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from workloads.capturing.hook import GemmCall
    from workloads.capturing.random_numbers import Draws

# How far outputs of a model that computes in coarse steps (8-bit integers, 16-bit floats) may
# differ between two machines, relative to the largest: a last bit moves a value by a whole step.
_STEP_TOLERANCE = 0.02
_COARSE = ("bfloat16", "float16")
# Outputs that differ by less, relative to the largest, may be of the same weights.
_NEAR = 0.1


# The first of a process that answered as its trace holds, by the name of its copies.
_answered: "dict[str, weakref.ref[torch.nn.Module]]" = {}


def check_model(trace: WorkloadTrace, model: "torch.nn.Module", *, copy_of: str = "") -> None:
    """Without reuse the model must answer as it did when it was captured.

    What differs would else be blamed on reuse. Nothing cheaper than a run can tell: numbers that a
    model draws from a generator of its own, and state that it keeps, show nowhere else, even if it
    was captured in this process. So it is run dense once, on the first image where that tells:

    - once for each model that draws no random numbers, whatever traces are captured of it here
      (a stream's, say), and once for each trace that was loaded or has a seed;
    - not again while nothing in it changes (`workloads.capturing.unchanged`); a function, in which
      nothing can be compared, is run each time;
    - once a process for all copies of one model and trace, which a search sends with every trial.

    Args:
        trace: of the model.
        model: the captured model.
        copy_of: names the model and the trace where a process gets copies of them: once one has
            answered so, the others are not run.

    Raises:
        ConfigError: it answers otherwise, or otherwise each time, or runs other layers.
        TraceError: the trace's outputs are not finite, or the model fails now.
    """
    from workloads.capturing.unchanged import is_remembered, remember

    if trace.outputs is not None:
        judged = Judged.of(trace.provenance)
        name = str(trace.provenance.get("model", "of the trace"))
        check_outputs_finite(name, judged, trace.outputs, trace.layers[-1].name)
    if is_remembered(trace, model):
        return
    if copy_of in _answered and _answered[copy_of]() is not model:
        remember(trace, model, verified=True)
        return
    dense = _Dense(trace, model)
    try:
        before = dense.state()
        if not dense.answers_first_image():
            dense.check_all()
        if dense.state() != before:  # of a model that was just made, the second answer tells
            dense.check_all()
    except (ConfigError, InputError, OSError):
        raise
    except Exception as error:  # the user's code may raise anything
        raise TraceError(
            "model must answer the inputs that it was captured with once more, got "
            f"{told(error)}; check its code"
        ) from error
    remember(trace, model, verified=True, repeats=not dense.draws)
    if copy_of:
        _answered[copy_of] = weakref.ref(model)


class _Dense:
    """Dense runs of a model on a trace, to see whether it answers as it did.

    Attributes:
        draws: whether the model drew random numbers.
    """

    def __init__(self, trace: WorkloadTrace, model: "torch.nn.Module") -> None:
        self._trace, self._model = trace, model
        self.draws = False

    def state(self) -> list[tuple[str, object]]:
        """What the model holds; empty of a function."""
        from workloads.capturing.unchanged import state_of

        return state_of(self._model) if hasattr(self._model, "named_modules") else []

    def answers_first_image(self) -> bool:
        """Whether the model answers the first of several images as before: less than a whole run.

        `False` also where images can't be told apart, or the model takes a whole batch alone.
        """
        from workloads.capturing.call_structure import CALL
        from workloads.capturing.random_numbers import Draws
        from workloads.capturing.replaying import replay

        trace = self._trace
        inputs, outputs = trace.inputs, trace.outputs
        if trace.images == 1 or inputs is None or outputs is None or CALL in trace.provenance:
            return False
        if any(len(array.shape) == 0 or len(array) != trace.images for array in (*inputs, outputs)):
            return False
        draws = Draws()
        try:
            answer = replay(trace, self._model, lambda _: None, images=1, draws=draws)
        except Exception:  # what a model does with a single image is no fault: all of them follow
            return False
        self.draws = draws.noticed
        if self.draws and not self._seeded:
            return False
        return answer is not None and _same(answer, outputs[:1], trace)

    def check_all(self) -> None:
        """The whole batch, once; and once more to tell what is wrong, if anything is.

        Raises:
            ConfigError: the model answers otherwise, or otherwise each time.
        """
        from workloads.capturing.random_numbers import Draws

        trace, draws, precisions = self._trace, Draws(), set()

        def note(call: "GemmCall") -> None:
            precisions.add(str(call.input.dtype).removeprefix("torch."))

        answers = run_model(trace, self._model, note, draws)
        self.draws = draws.noticed
        if self.draws and not self._seeded:
            again = Draws()
            run_model(trace, self._model, note, again)
            if again.noticed:  # a model that seeds itself leaves the generators where they were
                raise ConfigError(
                    "model must answer the same each time to be judged, but it draws random "
                    "numbers as it runs (dropout that is kept, sampling, noise) and the trace was "
                    "captured without a seed; capture(model, inputs, seed=0), which then seeds "
                    "every run on this trace"
                )
        known = trace.outputs
        if answers is not None and known is not None and not _same(answers, known, trace):
            raise ConfigError(self._difference(answers, known, precisions))

    @property
    def _seeded(self) -> bool:
        from workloads.capturing.replaying import seed_of

        return seed_of(self._trace) is not None

    def _difference(self, answers: np.ndarray, known: np.ndarray, precisions: set[str]) -> str:
        """Why outputs may be others than the trace's."""
        rule = "model must answer as it did when the trace was captured, got "
        if answers.shape != known.shape:
            return (
                f"{rule}outputs of shape {answers.shape} where {known.shape} were; pass the "
                "captured model"
            )
        if not np.isfinite(answers).all():
            count = answers.size - int(np.isfinite(answers).sum())
            return (
                f"{rule}NaN or infinity in {count} of {answers.size} outputs; check the model's "
                "weights, and that it computes in the precision that it was captured in"
            )
        before = self.state()
        again = run_model(self._trace, self._model, lambda _: None)
        if again is None or not _same(again, answers, self._trace):
            pairs = zip(before, self.state(), strict=False)
            names = sorted({old[0] for old, new in pairs if old != new})
            kept = f" It changes as it runs: {', '.join(names[:5])}." if names else ""
            return (
                "model must answer the same each time to be judged, but two dense runs on the same "
                "inputs differ: it keeps state from call to call, or draws random numbers from a "
                f"generator of its own, which no seed of capture() reaches.{kept} Make each call "
                "begin alike: reset what it keeps and seed its generator in forward()"
            )
        then = set(str(self._trace.provenance.get("precision", "")).split(" and ")) - {""}
        quantised = any(layer.quantisation for layer in self._trace.layers)
        if then and then != precisions and not quantised:
            return (
                f"{rule}layers in {' and '.join(sorted(precisions))} where they were in "
                f"{' and '.join(sorted(then))}; give the model in the precision of the capture, or "
                "capture it again"
            )
        scale = float(np.abs(known).max())
        off = float(np.abs(_wide(answers) - _wide(known)).max()) / scale if scale else float("inf")
        text = (
            f"{rule}other outputs, off by {off:.2g} of the largest; pass the captured model with "
            "the same weights"
        )
        if off < _NEAR:
            text += (
                ". A difference as small may also come from another number of threads, other "
                "settings of precision or another machine; then capture it again here"
            )
        return text


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _same(answers: np.ndarray, known: np.ndarray, trace: WorkloadTrace) -> bool:
    """Equal but for sums in another order; a model with other weights is off by far more."""
    if answers.shape != known.shape or not np.isfinite(_wide(answers)).all():
        return False
    answers, known = _wide(answers), _wide(known)
    precision = str(trace.provenance.get("precision", ""))
    stepped = any(layer.quantisation for layer in trace.layers)
    stepped |= any(name in precision for name in _COARSE)
    tolerance = _STEP_TOLERANCE * float(np.abs(known).max(initial=0)) if stepped else 1e-3
    return np.allclose(answers, known, rtol=1e-2, atol=tolerance)


def _check_rows(layer: Layer, known: "Mapping[str, tuple[Gemm, Any]]") -> None:
    """A model that chooses by its inputs which rows a layer gets can't be replayed under reuse."""
    if layer.name not in known:
        return
    gemm, then = layer.gemm, known[layer.name][0]
    if gemm != then and (gemm.n, gemm.k, gemm.count) == (then.n, then.k, then.count):
        raise ConfigError(
            f"model must send as many rows to layer {layer.name!r} as when it was captured, got "
            f"{gemm.m} instead of {then.m}: it chooses by values that reuse changes, as a mixture "
            "of experts does; simulate it without the model, then each layer's reuse is decided on "
            "its recorded rows"
        )


def run_model(
    trace: WorkloadTrace,
    model: "torch.nn.Module",
    result_of: "Callable[[GemmCall], torch.Tensor | None]",
    draws: "Draws | None" = None,
) -> np.ndarray | None:
    """Run the model on the trace's inputs with every product's result replaced.

    Args:
        trace: of the model.
        model: the captured model.
        result_of: gives a product's result, or `None` to compute it.
        draws: told whether the model draws random numbers.

    Raises:
        ConfigError: the model runs other layers than the trace has.
        TraceError: the trace has no inputs.
    """
    from workloads.capturing.replaying import replay  # the only part that needs PyTorch

    known = {layer.name: (layer.gemm, layer.quantisation) for layer in trace.layers}
    asked = set()

    def on_gemm(call):
        layer = call.layer
        _check_rows(layer, known)
        if known.get(layer.name) != (layer.gemm, layer.quantisation):
            raise ConfigError(
                f"model must run the layers of the trace, got {layer.name!r} of {layer.gemm} in "
                f"{layer.quantisation or 'floating point'}; pass the model that was captured"
            )
        asked.add(layer.name)
        return result_of(call)

    outputs = replay(trace, model, on_gemm, draws=draws)
    missing = [name for name in known if name not in asked]
    if missing:
        raise ConfigError(
            f"model must run the layers of the trace, got none called {', '.join(missing)}; "
            "pass the model that was captured"
        )
    return outputs
