"""Times a network and its modules, dense and reused."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from itertools import cycle

import numpy as np
import torch
from torch import Tensor, nn

from accelerators import ConfigError
from codesign.boards.measure.board import Board, BoardWatch
from codesign.boards.measure.reused import Reuse, ReusedLayer, why_dense

_TIMED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
DENSE, REUSED = "dense", "reused"

OnProgress = Callable[[str], None]
"""Is told what is measured next."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Runs of one thing.

    Attributes:
        runs_ms: wall time of each run, warm-up left out.
        start_s: seconds since 1970 when the first began.
        end_s: when the last ended.
    """

    runs_ms: tuple[float, ...]
    start_s: float
    end_s: float

    @property
    def median_ms(self) -> float:
        """Half of the runs took longer."""
        return float(np.median(self.runs_ms))

    @property
    def quartiles_ms(self) -> tuple[float, float]:
        """A quarter of the runs took less, and a quarter more."""
        low, high = np.percentile(self.runs_ms, (25, 75))
        return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """One call of a convolution or linear module.

    Attributes:
        name: path of the module, with `#2` at its second call, and so on.
        shapes: of its input and output, in words.
        dense: as PyTorch runs it.
        reused: with its product reused; `None` where it is not, see `why_dense`.
        why_dense: empty where it is reused.
        remaining_ratio: r_c, clusters over sub-vectors.
        error: |Y' - Y| / |Y| of the reused output Y', in the Euclidean norm.
    """

    name: str
    shapes: str
    dense: Timing
    reused: Timing | None = None
    why_dense: str = ""
    remaining_ratio: float | None = None
    error: float | None = None

    @property
    def speedup(self) -> float | None:
        """Dense over reused median; above 1 reuse is faster."""
        return self.dense.median_ms / self.reused.median_ms if self.reused else None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A network on a device.

    Attributes:
        board: the device.
        conditions: clock, temperature and throttling, as far as it tells.
        clock_mhz: median of the fastest core; `None` if it does not tell.
        threads: that PyTorch and the reuse kernel used.
        warm_up: runs left out before each timing.
        reuse: the setting, or `None`.
        dense: the network as PyTorch runs it.
        reused: with every module reused that can be; `None` if none.
        error: of the reused network's output, as of a layer's.
        layers: in the order of their calls; empty if they were not timed.
    """

    board: Board
    conditions: str
    clock_mhz: float | None
    threads: int
    warm_up: int
    reuse: Reuse | None
    dense: Timing
    reused: Timing | None
    error: float | None
    layers: tuple[LayerTimes, ...]

    @property
    def speedup(self) -> float | None:
        """Of the network, as of a layer."""
        return self.dense.median_ms / self.reused.median_ms if self.reused else None


def measure(
    model: nn.Module,
    images: Tensor,
    *,
    reuse: Reuse | None = None,
    threads: int | None = None,
    repeats: int = 20,
    warm_up: int = 3,
    layers: bool = True,
    watch: BoardWatch | None = None,
    on_progress: OnProgress = lambda text: None,
) -> Measurement:
    """Time a network, and its convolutions and linear modules on their real inputs.

    The network's dense runs come first and its reused ones after, so that a power meter can tell
    them apart. A module's dense and reused runs alternate. What calls PyTorch's functions instead
    of modules counts in the network's time alone, and is never reused.

    Args:
        model: in eval mode.
        images: its only input; a run takes all of it.
        reuse: the setting; `None` times dense runs alone.
        threads: of PyTorch and the reuse kernel; `None` for as many as cores.
        repeats: runs of each timing, at least 1.
        warm_up: runs before, at least 0.
        layers: time each module as well.
        watch: reads clock, temperature and throttling between runs.
        on_progress: is told what comes next.

    Raises:
        ConfigError: numbers out of range, or a model that cannot take the images.
    """
    watch = watch or BoardWatch(board=Board.here())
    threads = watch.board.cores if threads is None else threads
    _check(threads, watch.board.cores, repeats, warm_up)
    times = partial(_times, repeats=repeats, warm_up=warm_up, after=watch.sample)
    with torch.inference_mode(), _threads(threads):
        on_progress("running the model once")
        calls = _calls(model, images, reuse)
        watch.start()
        on_progress("the network, dense")
        dense = times({DENSE: lambda: model(images)})[DENSE]
        reused, error = None, None
        if any(call.reused for call in calls):
            expected = model(images)
            with _reused(calls):
                on_progress("the network, reused")
                error = _error(model(images), expected)
                reused = times({REUSED: lambda: model(images)})[REUSED]
        timed = _time_layers(model, images, calls, times, on_progress) if layers else ()
        watch.stop()
    return Measurement(
        board=watch.board,
        conditions=watch.conditions,
        clock_mhz=watch.clock_mhz,
        threads=threads,
        warm_up=warm_up,
        reuse=reuse,
        dense=dense,
        reused=reused,
        error=error,
        layers=timed,
    )


def _check(threads: int, cores: int, repeats: int, warm_up: int) -> None:
    rules = (
        ("threads", threads, 1, cores, f"1 to {cores}, the cores of this device"),
        ("repeats", repeats, 1, None, "at least 1"),
        ("warm-up", warm_up, 0, None, "at least 0"),
    )
    broken = [
        f"{name} must be {rule}, got {given}; use {low if given < low else most}"
        for name, given, low, most, rule in rules
        if given < low or (most is not None and given > most)
    ]
    if broken:
        raise ConfigError(broken)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _times(
    runs: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm_up: int,
    after: Callable[[], None],
) -> dict[str, Timing]:
    """Time what is given in turns."""
    for _ in range(warm_up):
        for run in runs.values():
            run()
    start_s = time.time()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            taken[name].append((time.perf_counter() - begin) * 1e3)
            after()
    end_s = time.time()
    return {
        name: Timing(runs_ms=tuple(each), start_s=start_s, end_s=end_s)
        for name, each in taken.items()
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """A call of a module in a run of the network."""

    name: str
    module: nn.Module
    why_dense: str = ""
    reused: ReusedLayer | None = field(default=None, repr=False)


def _visit(
    model: nn.Module, images: Tensor, visit: Callable[[str, nn.Module, Tensor], None]
) -> None:
    """Run the model, and meet each call of a timed module with its input."""
    calls: Counter[str] = Counter()

    def meet(path: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if not given:  # by keyword: in the network's time alone
            return
        calls[path] += 1
        name = path if calls[path] == 1 else f"{path}#{calls[path]}"
        visit(name, module, given[0])

    hooks = [
        module.register_forward_pre_hook(partial(meet, path or type(model).__name__))
        for path, module in model.named_modules()
        if isinstance(module, _TIMED)
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()


def _calls(model: nn.Module, images: Tensor, reuse: Reuse | None) -> list[_Call]:
    """Every call of a timed module, with its reused form where it has one."""
    calls: list[_Call] = []

    def build(name: str, module: nn.Module, given: Tensor) -> None:
        reason = "" if reuse is None else why_dense(name, module, given, reuse)
        reused = None
        if reuse is not None and not reason:
            reused = ReusedLayer(name, module, given, reuse)
        calls.append(_Call(name=name, module=module, why_dense=reason, reused=reused))

    try:
        model(images)
    except Exception as error:  # the user's model may raise anything
        raise ConfigError(
            f"the model must take inputs of shape {tuple(images.shape)}, got "
            f"{type(error).__name__}: {error}; give --inputs or --size that fit it"
        ) from error
    _visit(model, images, build)
    _check_patterns(calls, reuse)
    return calls


def _check_patterns(calls: Sequence[_Call], reuse: Reuse | None) -> None:
    """A pattern that no module fits is a mistake."""
    for pattern in reuse.layers if reuse is not None else ():
        if not any(fnmatchcase(call.name, pattern) for call in calls):
            raise ConfigError(
                f"layer {pattern!r} must fit a module of the model, got none; the model has "
                f"{', '.join(call.name for call in calls)}"
            )


@contextmanager
def _reused(calls: Sequence[_Call]) -> Iterator[None]:
    """Modules run their reused forms, in the order of their calls."""
    forms: dict[nn.Module, list[Callable[[Tensor], Tensor]]] = {}
    for call in calls:
        forms.setdefault(call.module, []).append(call.reused or call.module.forward)
    before = {module: vars(module).get("forward") for module in forms}
    for module, each in forms.items():
        turns = cycle(each)
        module.forward = lambda given, turns=turns: next(turns)(given)
    try:
        yield
    finally:
        for module, own in before.items():
            del module.forward
            if own is not None:
                module.forward = own


def _time_layers(
    model: nn.Module,
    images: Tensor,
    calls: Sequence[_Call],
    times: Callable[[Mapping[str, Callable[[], object]]], dict[str, Timing]],
    on_progress: OnProgress,
) -> tuple[LayerTimes, ...]:
    """Each call where it happens, so that no input is kept longer than the model keeps it."""
    found: list[LayerTimes] = []

    def run(name: str, module: nn.Module, given: Tensor) -> None:
        call = calls[len(found)]
        on_progress(f"layer {len(found) + 1} of {len(calls)}, {name}")
        expected = module.forward(given)
        ways: dict[str, Callable[[], object]] = {DENSE: lambda: module.forward(given)}
        reused = call.reused
        if reused is not None:
            error = _error(reused(given), expected)
            ways[REUSED] = lambda: reused(given)
        taken = times(ways)
        found.append(
            LayerTimes(
                name=name,
                shapes=f"{_shape(given)} -> {_shape(expected)}",
                dense=taken[DENSE],
                reused=taken.get(REUSED),
                why_dense=call.why_dense,
                remaining_ratio=None if reused is None else reused.remaining_ratio,
                error=None if reused is None else error,
            )
        )

    _visit(model, images, run)
    return tuple(found)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _error(output: object, expected: object) -> float | None:
    """|Y' - Y| / |Y|; `None` where a model gives no tensor, or only zeros."""
    if not isinstance(output, Tensor) or not isinstance(expected, Tensor):
        return None
    size = expected.double().norm()
    return float((output.double() - expected).norm() / size) if size > 0 else None
