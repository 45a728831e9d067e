"""Running the layers of a trained network along a path, with the hidden states of shared prefixes kept."""

import contextlib
import inspect
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.analysis.depth.path import LayerPath
from graphseq.nn import BlockStack

__all__ = ["ChainExecutor", "PreparedChain"]

_STATES = ("state", "cache", "kv_cache", "past_key_value", "past_key_values", "hx")


class ChainExecutor:
    r"""Runs the layers of a trained network along any path: some left out, some repeated, without changing a weight.

    .. math:: y = \operatorname{head}\bigl(L_{i_K}(\cdots L_{i_1}(\operatorname{embed}(x)))\bigr)

    While the network computes its own ``forward``, its list of layers is replaced by a single layer that runs the path;
    embedding, positions, masks, last norm and head are those of the network. Each layer receives the further arguments
    that the network passes to its first layer, such as ``lengths`` or ``edge_index``. So it runs any network whose
    ``forward`` goes once through a list of layers of equal width: those built on :class:`graphseq.nn.BlockStack`, and
    residual graph networks with a ``ModuleList`` of layers such as ``torch_geometric.nn.DeepGCNLayer``. That the
    original path gives the network's own output is checked when the first input is prepared.

    Source: arXiv 2507.07996, section 3. Differs from it: the hidden states after shared prefixes of paths are kept.

    Args:
        model: trained network in evaluation mode.
        layers: dotted name of the ``ModuleList`` or ``Sequential`` of layers; None for the blocks of the only
            :class:`graphseq.nn.BlockStack` in the network.
        cache_bytes: largest number of bytes of hidden states that a prepared input keeps, at least 0; those used least
            recently are dropped.

    Raises:
        ValueError: if no list of layers has this name, layers state different widths, or ``cache_bytes`` is below 0;
            in calls if the network is in training mode, its layers form no chain, a layer is of another width, or a
            state such as a cache of keys and values is given.

    Example:
        >>> from graphseq.nn import CausalAttention, SequenceBlock
        >>> network = nn.Sequential(BlockStack([SequenceBlock(CausalAttention(8))], repeats=4)).eval()
        >>> executor = ChainExecutor(network)
        >>> run = executor.prepare(torch.randn(1, 5, 8))
        >>> run(LayerPath([0, 1, 3, 3]))[0].shape, run(LayerPath([0, 1, 2]))[0].shape, run.layer_calls
        (torch.Size([1, 5, 8]), torch.Size([1, 5, 8]), 6)
    """

    def __init__(self, model: nn.Module, layers: str | None = None, cache_bytes: int = 2**28) -> None:
        if cache_bytes < 0:
            raise ValueError(f"cache_bytes is {cache_bytes}; give at least 0, which keeps no hidden states")
        self.model, self.cache_bytes = model, cache_bytes
        self.name = _only_stack(model) if layers is None else layers
        lists = {name: part for name, part in model.named_modules() if isinstance(part, nn.ModuleList | nn.Sequential)}
        if not self.name or self.name not in lists:
            raise ValueError(
                f"layers is {self.name!r}, which names no ModuleList or Sequential in {type(model).__name__}; it has "
                f"{', '.join(repr(name) for name in lists if name) or 'none'}"
            )
        self.layers: Sequence[nn.Module] = list(lists[self.name])
        if not self.layers:
            raise ValueError(f"layers is {self.name!r}, which is empty; name a list with at least one layer")
        _check_widths(self.name, self.layers)
        self._is_chain = False

    @property
    def num_layers(self) -> int:
        """Number N of layers of the network."""
        return len(self.layers)

    @property
    def original(self) -> LayerPath:
        """Path that runs the network as it is."""
        return LayerPath.original(self.num_layers)

    def __call__(self, path: Sequence[int], *inputs: Any, **named: Any) -> Any:
        """Return the output of the network along a path, in the form that its ``forward`` returns.

        Args:
            path: numbers of the layers to run, in order.
            *inputs: arguments of the network.
            **named: arguments of the network, by name.
        """
        return self.prepare(*inputs, **named)(path)

    def prepare(self, *inputs: Any, **named: Any) -> "PreparedChain":
        """Return the function that runs paths on one input (or one batch) and keeps the hidden states of prefixes.

        Args:
            *inputs: arguments of the network; neither they nor the weights may change afterwards.
            **named: arguments of the network, by name.
        """
        if any(part.training for part in self.model.modules()):
            raise ValueError(
                f"{type(self.model).__name__} is in training mode, in which dropout is random and batch norms move; "
                "call model.eval() first"
            )
        _refuse_state(self.model, inputs, named)
        prepared = PreparedChain(self, inputs, named)
        if not self._is_chain:
            with torch.no_grad(), _every_layer():
                own = self.model(*inputs, **named)
            message = (
                f"the layers {self.name!r} of {type(self.model).__name__} form no chain: one after the other, with "
                "the arguments of the first, they do not give the output of the network. Something stands between "
                "them, or each has arguments of its own"
            )
            try:
                same = _same(own, prepared(self.original))
            except (AssertionError, AttributeError, IndexError, RuntimeError) as error:  # of the network
                raise ValueError(message) from error
            if not same:
                raise ValueError(message)
            self._is_chain = True
        return prepared

    @contextlib.contextmanager
    def _replaced(self, chain: nn.Module) -> Iterator[None]:
        """Put a layer in the place of all layers for the time of a call."""
        parent_name, _, own_name = self.name.rpartition(".")
        parent = self.model.get_submodule(parent_name)
        own = getattr(parent, own_name)
        setattr(parent, own_name, type(own)(*([[chain]] if isinstance(own, nn.ModuleList) else [chain])))
        try:
            yield
        finally:
            setattr(parent, own_name, own)


class PreparedChain:
    """Network and one input of it: a function from a path to the output, made by :meth:`ChainExecutor.prepare`.

    Attributes:
        layer_calls: number of layers run so far; layers whose hidden states were reused are not counted.

    Example:
        >>> from graphseq.nn import CausalAttention, SequenceBlock
        >>> network = nn.Sequential(BlockStack([SequenceBlock(CausalAttention(8))], repeats=3)).eval()
        >>> run = ChainExecutor(network).prepare(torch.randn(1, 5, 8))
        >>> _ = run([0, 1, 2]), run([0, 1]), run([0, 1, 1])
        >>> run.layer_calls, run.num_layers
        (4, 3)
    """

    def __init__(self, executor: ChainExecutor, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.executor, self.inputs, self.named = executor, inputs, named
        self.layer_calls = 0
        self._kept: OrderedDict[tuple[int, ...], Any] = OrderedDict()  # path prefix -> output of its last layer
        self._bytes = 0

    @property
    def num_layers(self) -> int:
        """Number N of layers of the network."""
        return self.executor.num_layers

    def __call__(self, path: Sequence[int]) -> Any:
        """Return the output of the network along a path, in the form that its ``forward`` returns.

        Args:
            path: numbers of the layers to run, in order.
        """
        chosen = LayerPath(path)
        if max(chosen) >= self.num_layers:
            raise ValueError(f"path is {chosen}; there are the layers 0 to {self.num_layers - 1}")
        chain = _Chain(self, chosen)
        with torch.no_grad(), _every_layer(), self.executor._replaced(chain):
            output = self.executor.model(*self.inputs, **self.named)
        if chain.calls != 1:
            raise ValueError(
                f"{type(self.executor.model).__name__} goes {chain.calls} times through its layers "
                f"{self.executor.name!r}; it must do so once"
            )
        return output

    def _prefix(self, path: LayerPath) -> tuple[int, Any]:
        """Return the length of the longest prefix whose output is kept, and the output."""
        for length in range(len(path), 0, -1):
            key = tuple(path[:length])
            if key in self._kept:
                self._kept.move_to_end(key)
                return length, self._kept[key]
        return 0, None

    def _keep(self, key: tuple[int, ...], output: Any) -> None:
        self._kept[key] = output
        self._bytes += _hidden(output).nbytes
        while self._bytes > self.executor.cache_bytes:
            self._bytes -= _hidden(self._kept.popitem(last=False)[1]).nbytes


class _Chain(nn.Module):
    """Layer that runs a path, to stand in the place of all layers."""

    def __init__(self, prepared: PreparedChain, path: LayerPath) -> None:
        super().__init__()
        self.prepared, self.path, self.calls = prepared, path, 0
        self.eval()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the first layer, for networks that ask their layers for something."""
        return getattr(vars(self)["prepared"].executor.layers[0], name)

    def forward(self, x: Tensor, *arguments: Any, **named: Any) -> Any:
        """Return the output of the last layer of the path.

        Args:
            x: input of the first layer.
            *arguments: what the network gives its first layer further.
            **named: the same, by name.
        """
        self.calls += 1
        executor = self.prepared.executor
        _refuse_state(executor.layers[0], (x, *arguments), named)
        done, output = self.prepared._prefix(self.path)
        h = x if not done else _hidden(output)
        for place in range(done, len(self.path)):
            number = self.path[place]
            # a copy, since a layer may write into its input, which is kept for other paths
            output = executor.layers[number](h.clone(), *arguments, **named)
            if isinstance(output, tuple):  # a state of one layer means nothing to a chain: () in its place, which no
                output = (output[0], *(() for _ in output[1:]))  # layer takes for the beginning of a sequence
            before, h = h, _hidden(output)
            if h.shape != before.shape:
                raise ValueError(
                    f"layer {number} of {executor.name!r}, a {type(executor.layers[number]).__name__}, maps "
                    f"{tuple(before.shape)} to {tuple(h.shape)}; a chain needs layers of equal width"
                )
            self.prepared.layer_calls += 1
            self.prepared._keep(tuple(self.path[: place + 1]), output)
        return (h.clone(), *output[1:]) if isinstance(output, tuple) else h.clone()


@contextlib.contextmanager
def _every_layer() -> Iterator[None]:
    """Switch off torch's fused path of encoders, which packs padded sequences in a form that no other layer reads."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _hidden(output: Any) -> Tensor:
    found = output[0] if isinstance(output, tuple) else output
    if not isinstance(found, Tensor):
        raise TypeError(
            f"a layer returns {type(output).__name__}; a tensor, or a tuple that begins with one, is needed"
        )
    return found


def _only_stack(model: nn.Module) -> str:
    found = [name for name, part in model.named_modules() if isinstance(part, BlockStack)]
    if len(found) != 1:
        raise ValueError(
            f"{type(model).__name__} holds {len(found)} BlockStacks{f', {found}' if found else ''}; give layers, the "
            "dotted name of its list of layers"
        )
    return f"{found[0]}.blocks".removeprefix(".")


def _check_widths(name: str, layers: Sequence[nn.Module]) -> None:
    """Refuse layers that state different widths; those that state none are seen when they run."""
    for into, out in (("input_size", "output_size"), ("in_features", "out_features")):
        widths = [(getattr(layer, into, None), getattr(layer, out, None)) for layer in layers]
        known = {width for pair in widths for width in pair if width is not None}
        if len(known) > 1:
            raise ValueError(
                f"layers is {name!r}, whose layers have the widths {', '.join(f'{a} -> {b}' for a, b in widths)}; a "
                "chain needs layers of equal width"
            )


def _refuse_state(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    given = {**inspect.signature(module.forward).bind_partial(*arguments, **named).arguments, **named}
    for name in _STATES:
        if given.get(name) is not None:
            raise ValueError(
                f"{name} is given to {type(module).__name__}; paths run without a state such as a cache of keys and "
                "values, to which a repeated layer would add twice and a skipped one nothing. Give whole sequences"
            )


def _same(own: Any, other: Any) -> bool:
    """Whether two outputs hold the same numbers in their tensors; a state beside them is not looked at."""
    if isinstance(own, Tensor):
        return (
            isinstance(other, Tensor)
            and own.shape == other.shape
            and torch.allclose(own.double(), other.double(), rtol=1e-4, atol=1e-6, equal_nan=True)
        )
    if isinstance(own, tuple | list) and own:
        return isinstance(other, tuple | list) and bool(other) and _same(own[0], other[0])
    raise TypeError(f"the network returns {type(own).__name__}; a tensor, or a tuple that begins with one, is needed")
