"""Where ReLUs stand in a network: which layers they follow, and whose inputs they make non-negative."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["ReLUTrace", "trace_relus"]

# functions that keep the order of values, so that a ReLU behind them still rectifies the layer before them
_MONOTONE = {
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "contiguous", "clone",
    "getitem", "batch_norm", "dropout", "dropout1d", "dropout2d", "dropout3d", "max_pool1d", "max_pool2d", "max_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "mean", "sum", "amax", "to", "float",
}  # fmt: skip
_KEEPS_SIGN = _MONOTONE - {"batch_norm"}
_COMBINES = {"cat", "stack", "add", "iadd", "mul", "imul", "maximum", "minimum"}  # of non-negative tensors only
_NONNEGATIVE = -1  # mark of a tensor; other marks are numbers of calls of layers


@dataclass
class ReLUTrace:
    """What a forward pass shows of the ReLUs of a network.

    Args:
        nonnegative_inputs: names of the linear and convolutional layers whose inputs are non-negative, since they come
            from ReLUs through poolings, reshapings, sums and the like.
        rectified: names of those whose output goes into a ReLU and nowhere else, possibly through batch norm or a
            pooling.
        sources: names for each call of an ``nn.ReLU`` in the pass, in order: that of the module, and that of the layer
            which it rectifies; None where there is no such layer, as behind a residual sum.
        num_relus: number of calls of ReLU, those of the function too.

    Example:
        >>> ReLUTrace().rectified
        set()
    """

    nonnegative_inputs: set[str] = field(default_factory=set)
    rectified: set[str] = field(default_factory=set)
    sources: list[tuple[str, str | None]] = field(default_factory=list)
    num_relus: int = 0


class _Marks(TorchFunctionMode):
    """Marks tensors as non-negative, or as the output of a call of a layer, while a network runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []  # layer of each call
        self.rectified: set[int] = set()  # calls whose output went into a ReLU
        self.used: set[int] = set()  # calls whose output went elsewhere
        self.num_relus = 0
        self._found: dict[int, tuple[Tensor, int]] = {}  # tensors are kept, so that no two of them share an id

    def mark(self, value: object, mark: int | None) -> None:
        if isinstance(value, Tensor):
            self._found.pop(id(value), None)
            if mark is not None:
                self._found[id(value)] = (value, mark)

    def of(self, value: object) -> int | None:
        return self._found.get(id(value), (None, None))[1]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor):
            return result  # sizes and the like
        name = getattr(func, "__name__", "").strip("_")
        given = [*_tensors(args), *_tensors(list((kwargs or {}).values()))]
        marks = [self.of(value) for value in given]
        first = marks[0] if marks else None
        after = None
        if name == "relu":
            self.num_relus += 1
            self.rectified.update(mark for mark in marks if mark is not None and mark != _NONNEGATIVE)
            after = _NONNEGATIVE
        elif first is not None and name in (_KEEPS_SIGN if first == _NONNEGATIVE else _MONOTONE):
            after = first
        else:
            self.used.update(mark for mark in marks if mark is not None and mark != _NONNEGATIVE)
            if name in _COMBINES and marks and all(mark == _NONNEGATIVE for mark in marks):
                after = _NONNEGATIVE
        self.mark(result, after)
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@torch.no_grad()
def trace_relus(network: nn.Module, run: Callable[[], object]) -> ReLUTrace:
    """Run a network once in evaluation mode, and return where its ReLUs stand.

    Tensors are followed through the functions that the forward pass calls: whatever is not known to keep the order or
    the sign of values ends a path, so that a layer is named only where it is certain. Batch norm counts as keeping the
    order, as it does where its factor is positive.

    Args:
        network: network with any layers; its modes and buffers are as before afterwards.
        run: function without arguments that runs the network on some batch.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> found = trace_relus(network, lambda: network(torch.ones(1, 2)))
        >>> sorted(found.nonnegative_inputs), sorted(found.rectified), found.sources
        (['2', '4'], ['0', '2'], [('1', '0'), ('3', '2')])
    """
    marks, signed, sources = _Marks(), set[str](), list[tuple[str, int | None]]()
    handles: list[Any] = []

    def watch_layer(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if marks.of(inputs[0] if inputs else None) != _NONNEGATIVE:
                signed.add(name)
            marks.mark(output, len(marks.calls))
            marks.calls.append(name)

        return hook

    def watch_relu(name: str) -> Callable[..., None]:
        # before it runs: in place, it would overwrite the mark
        def hook(relu: nn.Module, inputs: tuple[Any, ...]) -> None:
            sources.append((name, marks.of(inputs[0])))

        return hook

    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                handles.append(module.register_forward_hook(watch_layer(name)))
            elif isinstance(module, nn.ReLU):
                handles.append(module.register_forward_pre_hook(watch_relu(name)))
        with marks:
            run()
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    open_calls = {number for number in range(len(marks.calls)) if number not in marks.rectified} | marks.used
    return ReLUTrace(
        nonnegative_inputs=set(marks.calls) - signed,
        rectified=set(marks.calls) - {marks.calls[number] for number in open_calls},
        sources=[(name, None if mark is None or mark == _NONNEGATIVE else marks.calls[mark]) for name, mark in sources],
        num_relus=marks.num_relus,
    )
