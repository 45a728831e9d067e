"""Alternating timing of contenders in one process, and the limits of the machine for comparison."""

import collections
import contextlib
import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

__all__ = [
    "Epoch",
    "Ratio",
    "alternate",
    "copy_bandwidth",
    "copying",
    "exhaust",
    "interleave",
    "multiplying",
    "peak_memory",
    "ratios",
]


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    """Context without automatic garbage collection, in which explicit collections are cheap.

    Existing objects are frozen: a collection that visits all of torch's objects takes 50 ms and evicts the processor's
    caches before the next timed call.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def _synchronize() -> None:
    """Wait for the GPU if this process has used one: kernels are only queued when a call returns."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def alternate(contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Time contenders alternately, so that drift of the machine affects all of them alike.

    The order is rotated by one from round to round (A B, B A, A B, …); the garbage collector runs between
    measurements, not inside; a GPU that is in use is waited for.

    Args:
        contenders: name -> call without arguments. Compare the outputs before timing them.
        rounds: number of measurements of each contender, at least 1.
        warmup: number of untimed calls of each contender beforehand.

    Returns:
        Name -> seconds, one entry a round: entries of equal index were measured side by side.

    Raises:
        ValueError: if there is nothing to time, or ``rounds`` < 1 or ``warmup`` < 0.

    Example:
        >>> times = alternate({"sum": lambda: sum(range(100)), "nothing": lambda: None}, rounds=3)
        >>> [len(seconds) for seconds in times.values()]
        [3, 3]
    """
    if not contenders:
        raise ValueError("no contenders were given; give a dictionary of at least one name and call")
    if rounds < 1 or warmup < 0:
        raise ValueError(f"rounds is {rounds} and warmup {warmup}; rounds is at least 1, warmup at least 0")
    names = list(contenders)
    for _ in range(warmup):
        for name in names:
            contenders[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    with _collector_off():
        for turn in range(rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                call = contenders[name]
                gc.collect()
                _synchronize()
                start = time.perf_counter()
                call()
                _synchronize()
                times[name].append(time.perf_counter() - start)
    return times


Epoch = Callable[[], Iterator[None]]
"""Starts an epoch; each item that is taken from it is a step."""


def interleave(epochs: Mapping[str, Epoch], rounds: int, steps_a_turn: int) -> dict[str, list[float]]:
    """Time whole epochs that advance in turns, so that drift of the machine within an epoch affects all alike.

    A few untimed steps of each contender come first. The order is rotated from round to round; the garbage collector
    runs between turns.

    Args:
        epochs: name -> function that starts an epoch and returns the iterator of its steps.
        rounds: number of epochs of each contender, at least 1.
        steps_a_turn: number of steps of one contender before the next one, at least 1.

    Returns:
        Name -> duration of each epoch in seconds, without the turns of other contenders.

    Example:
        >>> times = interleave({"one": lambda: iter([None] * 5), "other": lambda: iter([None] * 5)}, 3, 2)
        >>> [len(seconds) for seconds in times.values()]
        [3, 3]
    """
    for start in epochs.values():
        collections.deque(islice(start(), 3), maxlen=0)
    names, times = list(epochs), {name: [] for name in epochs}  # type: tuple[list[str], dict[str, list[float]]]
    with _collector_off():
        for turn in range(rounds):
            shift = turn % len(names)
            running = {name: epochs[name]() for name in names[shift:] + names[:shift]}
            seconds = dict.fromkeys(names, 0.0)
            while running:
                for name, steps in list(running.items()):
                    gc.collect()
                    _synchronize()
                    start_time = time.perf_counter()
                    done = sum(1 for _ in islice(steps, steps_a_turn))
                    _synchronize()
                    seconds[name] += time.perf_counter() - start_time
                    if done < steps_a_turn:
                        del running[name]
            for name in names:
                times[name].append(seconds[name])
    return times


def exhaust(steps: Iterable[object]) -> None:
    """Consume an iterable without storing its items.

    Args:
        steps: iterable of batches, or of the steps of an epoch.

    Example:
        >>> exhaust(iter([1, 2]))
    """
    collections.deque(steps, maxlen=0)


@dataclass(frozen=True)
class Ratio:
    """Ratio of the speeds of two contenders: the median over rounds, and the range.

    Args:
        median: median of the ratios of all rounds.
        low: smallest ratio of a round.
        high: largest ratio of a round.

    Example:
        >>> str(Ratio(2.0, 1.8, 2.3))
        '2.00 (1.80 to 2.30)'
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratios(times: Mapping[str, Sequence[float]], ours: str, peer: str) -> Ratio:
    """Return how many times as fast ``ours`` is as ``peer``: the peer's time over ours, round by round.

    Args:
        times: durations that :func:`alternate` returned.
        ours: name of the contender that is faster if the ratio is above 1.
        peer: name of the contender to compare with.

    Raises:
        ValueError: if a name was not timed, or the two have different numbers of rounds.

    Example:
        >>> ratios({"ours": [1.0, 2.0, 1.0], "peer": [2.0, 3.0, 4.0]}, "ours", "peer")
        Ratio(median=2.0, low=1.5, high=4.0)
    """
    missing = [name for name in (ours, peer) if name not in times]
    if missing:
        raise ValueError(f"{', '.join(missing)} was not timed; {', '.join(times)} were")
    if len(times[ours]) != len(times[peer]) or not times[ours]:
        raise ValueError(f"{len(times[ours])} rounds of {ours} and {len(times[peer])} of {peer}; they come in pairs")
    quotients = [theirs / own for own, theirs in zip(times[ours], times[peer], strict=True)]
    return Ratio(statistics.median(quotients), min(quotients), max(quotients))


def copy_bandwidth(nbytes: int, rounds: int = 9, device: str = "cpu") -> float:
    """Return the bandwidth of a plain torch copy in GB/s, bytes read **and** written counted, as STREAM does.

    An operation that must read R and write W bytes takes at least ``(R + W) / bandwidth``. Give the size that the
    operation moves, since tensors that fit into the cache are copied much faster than larger ones.

    Args:
        nbytes: size of the tensor that is copied, at least 1.
        rounds: number of timed copies, of which the median is taken.
        device: device of both tensors.

    Raises:
        ValueError: if ``nbytes`` < 1.

    Example:
        >>> copy_bandwidth(1 << 20) > 0
        True
    """
    copy = copying(nbytes, device)
    # one clock read costs about 0.1 µs: small copies are repeated until a round moves 16 MB
    repeats = max(1, (1 << 24) // nbytes)

    def several() -> None:
        for _ in range(repeats):
            copy()

    seconds = statistics.median(alternate({"copy": several}, rounds)["copy"])
    return 2 * nbytes * repeats / seconds / 1e9


def copying(nbytes: int, device: str = "cpu") -> Callable[[], object]:
    """Return a call that copies a number of bytes: as many are read, and as many written.

    Args:
        nbytes: size of the tensor that is copied, at least 1.
        device: device of source and target.

    Raises:
        ValueError: if ``nbytes`` < 1.

    Example:
        >>> copying(3)()
        tensor([1, 1, 1], dtype=torch.uint8)
    """
    if nbytes < 1:
        raise ValueError(f"nbytes is {nbytes}; it is at least 1")
    import torch

    source = torch.ones(nbytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)  # zeros, not empty: its pages exist before the first timed copy
    return lambda: target.copy_(source)


def multiplying(device: str = "cpu") -> tuple[Callable[[], object], int]:
    """Return a call that multiplies large square matrices in float32, and its number of floating-point operations.

    The number of operations over its time is the rate with which a computation is compared.

    Args:
        device: device of the matrices.

    Example:
        >>> multiplying()[1] == 2 * 512**3
        True
    """
    import torch

    size = 512 if device == "cpu" else 8192
    left, right = torch.ones(2, size, size, device=device)
    out = torch.zeros_like(left)
    return lambda: torch.matmul(left, right, out=out), 2 * size**3


def _resident(field: str) -> int:
    """Resident memory of this process in bytes, as the kernel reports it: ``VmRSS`` now, ``VmHWM`` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def peak_memory(call: Callable[[], object], device: str = "cpu") -> int:
    """Return the peak growth of the resident memory of this process, or of GPU memory, during a call, in bytes.

    The kernel keeps the highest resident size (``VmHWM``); writing 5 to ``/proc/self/clear_refs`` sets it back to
    the present size, so the peak of one call is read exactly, without sampling, in the process that holds the data
    (a subprocess would count the import of torch, a sampling thread would miss short peaks). Pages that the
    allocator holds from earlier work are released first if the C library supports it; otherwise they hide growth.
    On a GPU it is the count of torch's allocator.

    Args:
        call: function to measure; call it once before, so that first allocations of libraries are not counted.
        device: ``"cpu"`` for the memory of the process, ``"cuda"`` for that of the GPU.

    Raises:
        OSError: if the kernel has no such counter (only Linux has).

    Example:
        >>> grown = peak_memory(lambda: bytearray(b"x" * 50_000_000))
        >>> 90_000_000 < grown < 120_000_000  # the literal and its copy
        True
    """
    gc.collect()
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return max(0, torch.cuda.max_memory_allocated() - held)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise OSError(f"peak memory needs Linux's /proc/self/clear_refs: {error}") from error
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)
