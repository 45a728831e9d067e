"""Recurrent networks whose layers and skip connections come from a graph."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.recurrent.padded import PaddedRecurrence
from graphseq.ops.recurrent import RecurrentMode, RecurrentState, recurrent_gates, recurrent_layers
from graphseq.sparsity.structures.layered import LayeredDAG

__all__ = ["GraphRNN"]

Recurrent = Literal["dense", "diagonal", "graph"]
Skip = Literal["cell", "input"]
Readout = Literal["last", "sinks", "all"]


class GraphRNN(Recorded, PaddedRecurrence):
    r"""Recurrent network with a unit for each vertex of a layered graph, and weights where the graph has edges.

    ::

        x -> layer 0 (dense) -> layer 1 -> layer 2 -> ... -> layer L - 1
                 |______________________^ skip connections, for edges that pass over a layer
                 |_________________________________________^

    Layer l is a recurrent cell with a unit for each of its vertices. With ``skip="input"`` its input are the outputs of
    all vertices that have an edge into it, at the same step:

    .. math:: h_v(t) = \mathrm{cell}\Bigl(\sum_{u \to v} W_{vu}\, h_u(t) + b,\; \sum_{w} U_{vw}\, h_w(t - 1) + c\Bigr)

    With ``skip="cell"``, as in the paper, that is the input from the layer before it alone; for each other layer s with
    an edge into layer l there is a further recurrent cell with a state of its own, whose outputs are added to those of
    layer l, after the nonlinearity:

    .. math:: y_l = \mathrm{cell}_l(y_{l-1}) + \sum_{s < l - 1} \mathrm{cell}_{sl}(y_s)

    The sum feeds later layers but not the recurrence of layer l. In cells with gates all gates of a vertex have the
    edges of that vertex. Layers are executed one after the other, each for all steps in one call, with the masks
    applied once; there is no loop over vertices, and none over steps in Python.

    ``unread_vertices`` are the vertices from which nothing reaches the read-out, neither along edges nor through the
    recurrence; a warning names their number. There are none with ``readout="sinks"`` or ``"all"``. ``input_layers`` are
    the layers whose outputs a layer takes, in the order of the columns of its weights; layer 0 takes x.

    Source: arXiv 2407.20601. Differs from it: the width of the input does not depend on the graph; outputs are read at
    the true length of a sequence; the masks of gates are those of the graph, where the released code interleaves their
    rows; ``skip``, ``recurrent`` and ``readout`` have further values beside the paper's, which are the defaults.

    Args:
        structure: the graph, such as a :class:`graphseq.sparsity.RandomDAG`.
        input_size: number of features D of each step.
        cell: kind of cell: ``rnn_tanh``, ``rnn_relu``, ``gru`` or ``lstm``.
        recurrent: recurrent connections within a layer: between all of its vertices (``dense``), of each vertex with
            itself (``diagonal``), or with itself and the vertices that share a neighbour with it (``graph``).
        skip: what an edge that passes over a layer becomes: a part of a further ``cell``, or of the ``input``.
        readout: vertices whose outputs are returned: those of the ``last`` layer, the ``sinks``, or ``all``, in the
            order of layers.

    Shape:
        x (B, T, D), state h or (h, c), each (B, units), lengths (B,) -> y (B, T, output_size)

    Raises:
        ValueError: if an argument is outside its range; in ``forward`` if ``x`` does not fit.
        TypeError: if ``structure`` is not a :class:`graphseq.sparsity.LayeredDAG`.

    Example:
        >>> from graphseq.sparsity import RandomDAG
        >>> structure = RandomDAG("watts_strogatz", 20, {"neighbors": 4, "p": 1.0})
        >>> layer = GraphRNN(structure, 8, cell="gru", skip="input", readout="sinks")
        >>> layer(torch.randn(2, 5, 8))[0].shape == (2, 5, layer.output_size)
        True
    """

    def __init__(
        self,
        structure: LayeredDAG,
        input_size: int,
        cell: RecurrentMode = "gru",
        recurrent: Recurrent = "dense",
        skip: Skip = "cell",
        readout: Readout = "last",
    ) -> None:
        super().__init__()
        if not isinstance(structure, LayeredDAG):
            raise TypeError(
                f"structure is a {type(structure).__name__}; give a graphseq.sparsity.LayeredDAG, which "
                "LayeredDAG.from_graph makes of a networkx graph"
            )
        if input_size < 1:
            raise ValueError(f"input_size is {input_size}; give a whole number of at least 1")
        recurrent_gates(cell)
        choices = {"recurrent": (recurrent, Recurrent), "skip": (skip, Skip), "readout": (readout, Readout)}
        for name, (value, known) in choices.items():
            if value not in get_args(known):
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(get_args(known))}")
        self.structure, self.input_size, self.cell = structure, input_size, cell
        self.recurrent, self.skip, self.readout = recurrent, skip, readout
        links = structure.common_neighbors()

        def build(target: int, sources: Sequence[int]) -> "_Layer":
            vertices = structure.layers[target]
            before = [vertex for source in sources for vertex in structure.layers[source]]
            mask = structure.mask(before, vertices) if sources else None
            among = links[vertices][:, vertices] if recurrent == "graph" else None
            return _Layer(cell, len(before) or input_size, len(vertices), mask, recurrent == "diagonal", among)

        self.input_layers: list[list[int]] = [self._sources_of(target) for target in range(len(structure.layers))]
        self.layers = nn.ModuleList(build(target, sources) for target, sources in enumerate(self.input_layers))
        self._skips = structure.skip_pairs if skip == "cell" else []
        self.skip_layers = nn.ModuleList(build(target, [source]) for source, target in self._skips)
        order = [vertex for layer in structure.layers for vertex in layer]
        chosen = {"last": structure.layers[-1], "sinks": structure.sinks, "all": order}[readout]
        self.readout_vertices: list[int] = [vertex for vertex in order if vertex in set(chosen)]
        self.output_size = len(self.readout_vertices)
        columns = torch.tensor([place for place, vertex in enumerate(order) if vertex in set(chosen)])
        self.register_buffer("_columns", columns, persistent=False)
        self.unread_vertices = self._unread(links)
        if self.unread_vertices:
            warnings.warn(
                f"{len(self.unread_vertices)} of {structure.num_vertices} vertices do not reach the read-out and are "
                "not trained; readout='sinks' reads what every vertex reaches",
                UserWarning,
                stacklevel=2,
            )

    _columns: Tensor

    def _sources_of(self, target: int) -> list[int]:
        """Layers that are the input of a layer."""
        if target == 0:
            return []
        if self.skip == "cell":
            return [target - 1]
        joined = self.structure.adjacency[:, self.structure.layers[target]].any(1)
        return sorted(set(self.structure.layer[joined].tolist()))

    def _unread(self, links: Tensor) -> list[int]:
        """Vertices from which no path of edges and recurrent connections leads to a read-out vertex."""
        reaches = self.structure.adjacency.clone()
        if self.recurrent != "diagonal":
            layer = self.structure.layer
            reaches |= (layer[:, None] == layer) & (links if self.recurrent == "graph" else True)
        read = torch.zeros(self.structure.num_vertices, dtype=torch.bool)
        read[self.readout_vertices] = True
        while True:
            more = read | (reaches & read).any(1)
            if torch.equal(more, read):
                return (~read).nonzero().squeeze(1).tolist()
            read = more

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for layer in self._cells():
            layer.reset_parameters()

    def _cells(self) -> "list[_Layer]":
        return [layer for layer in (*self.layers, *self.skip_layers) if isinstance(layer, _Layer)]

    @property
    def num_units(self) -> int:
        """Number of recurrent units, those of skip cells included; the width of the state."""
        return sum(layer.size for layer in self._cells())

    def num_weights(self) -> int:
        """Return the number of weights and biases that exist, without those outside the masks."""
        return sum(layer.num_weights() for layer in self._cells())

    def run(self, x: Tensor, batch_sizes: Tensor | None, state: RecurrentState | None) -> tuple[Tensor, RecurrentState]:
        """Outputs of the read-out vertices and state, of padded or of packed sequences."""
        cells = self._cells()
        sizes = [layer.size for layer in cells]
        before: list[tuple[Tensor, ...] | None] = [None] * len(cells)
        if state is not None:
            for part in state:
                if part.dim() != 2 or part.shape[1] != sum(sizes):
                    raise ValueError(f"state has shape {tuple(part.shape)}, where (B, {sum(sizes)}) is needed")
            before = list(zip(*(part.split(sizes, 1) for part in state), strict=True))
        after: list[tuple[Tensor, ...]] = [()] * len(cells)
        outputs: list[Tensor] = []  # of each layer, (B, T, N_l) or packed (M, N_l)

        def call(number: int, inputs: Tensor) -> Tensor:
            y, after[number] = cells[number](inputs, before[number], batch_sizes)
            return y

        for target, sources in enumerate(self.input_layers):
            parts = [outputs[source] for source in sources]
            y = call(target, x if not parts else parts[0] if len(parts) == 1 else torch.cat(parts, -1))
            for number, (source, other) in enumerate(self._skips, len(self.input_layers)):
                if other == target:
                    y = y + call(number, outputs[source])
            outputs.append(y)
        found = outputs[-1] if self.readout == "last" else torch.cat(outputs, -1)
        if self.readout == "sinks":
            found = found.index_select(-1, self._columns)
        return found, tuple(torch.cat(parts, 1) for parts in zip(*after, strict=True))

    def extra_repr(self) -> str:
        """Return the structure and the choices."""
        choices = f"recurrent={self.recurrent!r}, skip={self.skip!r}, readout={self.readout!r}"
        return f"{self.structure!r}, {self.input_size}, cell={self.cell!r}, {choices}"


class _Layer(nn.Module):
    """One recurrent cell with a mask over its inputs, the same for all gates, and one over its recurrence."""

    mask_ih: Tensor | None
    mask_hh: Tensor | None

    def __init__(
        self, cell: RecurrentMode, inputs: int, size: int, mask: Tensor | None, diagonal: bool, among: Tensor | None
    ) -> None:
        super().__init__()
        self.cell, self.size, self.diagonal, self.gates = cell, size, diagonal, recurrent_gates(cell)
        rows = self.gates * size
        self.weight_ih = nn.Parameter(torch.empty(rows, inputs))
        self.weight_hh = nn.Parameter(torch.empty(self.gates, size) if diagonal else torch.empty(rows, size))
        self.bias_ih = nn.Parameter(torch.empty(rows))
        self.bias_hh = nn.Parameter(torch.empty(rows))
        # rows of a gate stand together: one below the other the masks of the gates are the same
        self.register_buffer("mask_ih", None if mask is None else mask.repeat(self.gates, 1))
        self.register_buffer("mask_hh", None if among is None else among.repeat(self.gates, 1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(self.size), 1 / math.sqrt(self.size))
        for weight, mask in ((self.weight_ih, self.mask_ih), (self.weight_hh, self.mask_hh)):
            if mask is not None:
                weight.masked_fill_(~mask, 0.0)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Refuse the weights of another graph, which may have the same shapes."""
        errors: list[str] = rest[-1]
        for name, mask in (("mask_ih", self.mask_ih), ("mask_hh", self.mask_hh)):
            given = state_dict.get(f"{prefix}{name}")
            if mask is not None and given is not None and given.shape == mask.shape and not torch.equal(
                given.to(mask.device), mask
            ):  # fmt: skip
                errors.append(f"{prefix}{name} differs: the weights are those of a network with other edges")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def num_weights(self) -> int:
        pairs = ((self.weight_ih, self.mask_ih), (self.weight_hh, self.mask_hh))
        weights = sum(weight.numel() if mask is None else int(mask.sum()) for weight, mask in pairs)
        return weights + self.bias_ih.numel() + self.bias_hh.numel()

    def folded_weights(self) -> list[Tensor]:
        """Weights with the masks applied, as torch's kernels take them."""
        w_ih = self.weight_ih if self.mask_ih is None else self.weight_ih * self.mask_ih
        w_hh = self.weight_hh if self.mask_hh is None else self.weight_hh * self.mask_hh
        if self.diagonal:
            w_hh = torch.diag_embed(w_hh).flatten(0, 1)  # (gates, N) -> (gates N, N)
        return [w_ih, w_hh, self.bias_ih, self.bias_hh]

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None, batch_sizes: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        given = None if state is None else tuple(part[None].contiguous() for part in state)
        y, after = recurrent_layers(self.cell, x, self.folded_weights(), given, batch_sizes)
        return y, tuple(part[0] for part in after)
