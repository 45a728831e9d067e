"""Recurrent hypernetwork, whose later weights depend on the earlier ones, and which can grow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.nn.hyper.chunked import TaskHyperNetwork, pairs_of

__all__ = ["GrownParameter", "RNNHyperNetwork"]

_GATES = {"lstm": 4, "gru": 3}


@dataclass
class GrownParameter:
    """Record of a parameter that replaced a smaller one.

    Args:
        old: the smaller parameter, which is no longer used.
        new: the parameter in its place.
        spread: function from a tensor of the old shape to one of the new shape, with zeros in the entries that are new.

    Example:
        >>> grown = RNNHyperNetwork(nn.Linear(2, 2), num_tasks=1, hidden_size=3).grow(2)
        >>> [(tuple(each.old.shape), tuple(each.new.shape)) for each in grown][-1]
        ((2000, 3), (2000, 5))
    """

    old: nn.Parameter
    new: nn.Parameter
    spread: Callable[[Tensor], Tensor]


class RNNHyperNetwork(TaskHyperNetwork):
    r"""Hypernetwork that generates chunks of weights in sequence by an LSTM or a GRU; each depends on those before.

    .. math:: (h_i, c_i) = \mathrm{LSTM}([e_t; l_i], (h_{i-1}, c_{i-1})), \qquad r_i = W h_i + b

    Embeddings of the task and of the chunk are learned; W and b are the same for all chunks. Chunks come in the order
    of the layers.

    Source: arXiv 2209.07712, of which only the abstract could be read: the cell, the chunks, the sizes and the growth
    are choices of this library.

    Args:
        network: network whose trainable weights are generated; its first axis is the batch.
        num_tasks: number T of tasks, at least 1.
        task_size: size of the embedding of a task, at least 1.
        layer_size: size of the embedding :math:`l_i` of a chunk, at least 1.
        hidden_size: size of the hidden state, at least 1.
        chunk_size: number S of weights in a chunk, at least 1.
        cell: ``lstm`` or ``gru``.

    Shape:
        x (B, \*), task an integer -> the output of the network, (B, \*)

    Raises:
        ValueError: if a size is below 1, the cell is unknown, or no parameter of the network requires a gradient; in
            ``forward`` if there is no such task.

    Example:
        >>> hyper = RNNHyperNetwork(nn.Linear(3, 4), num_tasks=2, hidden_size=8, chunk_size=6)
        >>> hyper(torch.ones(5, 3), task=1).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        network: nn.Module,
        num_tasks: int,
        task_size: int = 32,
        layer_size: int = 32,
        hidden_size: int = 128,
        chunk_size: int = 2000,
        cell: Literal["lstm", "gru"] = "lstm",
    ) -> None:
        super().__init__(network, num_tasks, task_size, layer_size, chunk_size)
        if hidden_size < 1:
            raise ValueError(f"hidden_size is {hidden_size}; it must be at least 1")
        if cell not in _GATES:
            raise ValueError(f"cell is {cell!r}; it must be 'lstm' or 'gru'")
        self.cell: Literal["lstm", "gru"] = cell
        self.rnn = self._cell(hidden_size)
        self.output = nn.Linear(hidden_size, chunk_size)
        self.reset_parameters()

    def _cell(self, hidden_size: int) -> nn.RNNBase:
        kind = nn.LSTM if self.cell == "lstm" else nn.GRU
        return kind(self.task_size + self.layer_size, hidden_size, batch_first=True)

    @property
    def hidden_size(self) -> int:
        """Size of the hidden state, which :meth:`grow` increases."""
        return self.rnn.hidden_size

    def reset_parameters(self) -> None:
        """Redraw embeddings and layers."""
        self.reset_embeddings()
        self.rnn.reset_parameters()
        self.output.reset_parameters()
        self.standardize(self.output)

    def chunks(self, embeddings: Tensor) -> Tensor:
        """Return the chunks of some tasks, (T, L, S).

        Args:
            embeddings: embeddings of the tasks, (T, task_size).
        """
        states, _ = self.rnn(pairs_of(embeddings, self.chunk_embeddings))  # (T, L, H)
        return self.output(states)

    @torch.no_grad()
    def grow(self, num_units: int) -> list[GrownParameter]:
        """Add hidden units; the generated weights do not change.

        The weights from new to old units, and from new units to the chunks, start at 0; the other weights of new units
        are random.

        Args:
            num_units: number of units to add, at least 1.

        Returns:
            The parameters that were replaced; :func:`graphseq.tasks.extend_optimizer` replaces them in an optimiser,
            too.

        Raises:
            ValueError: if ``num_units`` is below 1.
        """
        if num_units < 1:
            raise ValueError(f"num_units is {num_units}; it must be at least 1")
        before, after = self.hidden_size, self.hidden_size + num_units
        gates = _GATES[self.cell]
        grown = self._cell(after).to(self.output.weight)

        def rows(tensor: Tensor) -> Tensor:
            new = tensor.new_zeros(gates, after, *tensor.shape[1:])
            new[:, :before] = tensor.unflatten(0, (gates, before))
            return new.flatten(0, 1)

        def square(tensor: Tensor) -> Tensor:
            new = tensor.new_zeros(gates, after, after)
            new[:, :before, :before] = tensor.unflatten(0, (gates, before))
            return new.flatten(0, 1)

        def outputs(tensor: Tensor) -> Tensor:
            return nn.functional.pad(tensor, (0, num_units))

        changed: list[GrownParameter] = []
        for name, new in grown.named_parameters():
            old = self.rnn.get_parameter(name)
            spread = square if name == "weight_hh_l0" else rows
            own = new.unflatten(0, (gates, after))
            own[:, :before] = spread(old).unflatten(0, (gates, after))[:, :before]
            changed.append(GrownParameter(old, new, spread))
        wider = nn.Parameter(outputs(self.output.weight))
        changed.append(GrownParameter(self.output.get_parameter("weight"), wider, outputs))
        grown.train(self.rnn.training)
        self.rnn, self.output.weight, self.output.in_features = grown, wider, after
        return changed

    def make_room(self, saved: Mapping[str, Tensor]) -> None:
        """Add tasks and hidden units until there are as many as in a saved state.

        Args:
            saved: state dict of this module.
        """
        super().make_room(saved)
        if "output.weight" in saved and saved["output.weight"].shape[1] > self.hidden_size:
            self.grow(saved["output.weight"].shape[1] - self.hidden_size)
