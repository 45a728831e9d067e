"""Recurrent networks whose weights can be pruned, with masks by matrix."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.recurrent.padded import PaddedRecurrence
from graphseq.ops.recurrent import RecurrentMode, RecurrentState, recurrent_gates, recurrent_layers
from graphseq.sparsity.scores import magnitude_score, random_score

__all__ = ["MaskedRNN"]

Matrices = Literal["input_hidden", "hidden_hidden", "both"]
Scope = Literal["global", "layer", "matrix"]
Score = Literal["magnitude", "random"]
_PREFIXES: dict[str, tuple[str, ...]] = {
    "input_hidden": ("weight_ih",),
    "hidden_hidden": ("weight_hh",),
    "both": ("weight_ih", "weight_hh"),
}


class MaskedRNN(Recorded, PaddedRecurrence):
    r"""Stack of RNN-tanh, RNN-ReLU, GRU or LSTM layers whose weights are nonzero only where their masks are true.

    .. math:: y, s = f(x;\; W_{ih} \odot M_{ih},\; W_{hh} \odot M_{hh},\; b_{ih},\; b_{hh})

    It has the cells, parameters and initialisation of torch's layers, below the same names (``layers.weight_ih_l0`` and
    so on), and equals them while all masks are true. Masks are buffers, in checkpoints and independent of the callback
    that sets them; biases have none. A mask is applied once for each call, not for each step, and the compiled loops of
    torch run over the steps. Masked weights get no gradient.

    Source: arXiv 2407.20601. Differs from it: outputs are read at the true length of a sequence.

    Args:
        input_size: number of features D of each step.
        hidden_size: size H of the hidden state of each layer.
        num_layers: number of layers, at least 1.
        cell: kind of cell: ``rnn_tanh``, ``rnn_relu``, ``gru`` or ``lstm``.
        dropout: probability in [0, 1) of setting an output of a layer to zero before the next layer.

    Shape:
        x (B, T, D), state as torch's layer takes it, lengths (B,) -> y (B, T, H)

    Raises:
        ValueError: if a size, ``cell`` or ``dropout`` is outside its range; in ``forward`` if ``x`` does not fit.

    Example:
        >>> layer = MaskedRNN(3, 5, cell="gru")
        >>> layer.prune_(0.8)
        >>> round(layer.sparsity(), 2), layer(torch.randn(2, 4, 3))[0].shape
        (0.8, torch.Size([2, 4, 5]))
    """

    batch_axis = 1  # a part of the state is (L, B, H), as that of torch's layer

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, cell: RecurrentMode = "lstm", dropout: float = 0.0
    ) -> None:
        super().__init__()
        for name, size in {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a whole number of at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        recurrent_gates(cell)
        self.input_size, self.hidden_size, self.output_size, self.cell = input_size, hidden_size, hidden_size, cell
        options: dict[str, Any] = {"batch_first": True, "dropout": dropout if num_layers > 1 else 0.0}
        self.layers: nn.RNNBase
        if cell == "lstm":
            self.layers = nn.LSTM(input_size, hidden_size, num_layers, **options)
        elif cell == "gru":
            self.layers = nn.GRU(input_size, hidden_size, num_layers, **options)
        else:
            nonlinearity = cell.removeprefix("rnn_")
            self.layers = nn.RNN(input_size, hidden_size, num_layers, nonlinearity=nonlinearity, **options)
        for name, weight in self._weights("both").items():
            self.register_buffer(f"mask_{name.removeprefix('weight_')}", torch.ones_like(weight, dtype=torch.bool))

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor; masks stay, and weights outside them become zero."""
        self.layers.reset_parameters()
        self.set_masks(self.masks)

    # masks

    def _weights(self, matrices: Matrices) -> dict[str, nn.Parameter]:
        if matrices not in _PREFIXES:
            raise ValueError(f"matrices is {matrices!r}; it must be one of {', '.join(get_args(Matrices))}")
        return {name: weight for name, weight in self.layers.named_parameters() if name.startswith(_PREFIXES[matrices])}

    def _mask(self, name: str) -> Tensor:
        return self.get_buffer(f"mask_{name.removeprefix('weight_')}")

    @property
    def masks(self) -> dict[str, Tensor]:
        """Mask of each matrix by the name of its weight, such as ``weight_hh_l0``, bool."""
        return {name: self._mask(name) for name in self._weights("both")}

    def masked_weights(self, matrices: Matrices = "both") -> dict[str, tuple[nn.Parameter, Tensor]]:
        """Return weight and mask of each matrix, by the name of the weight.

        Args:
            matrices: which matrices: ``input_hidden``, ``hidden_hidden`` or ``both``.

        Raises:
            ValueError: if ``matrices`` is none of these.
        """
        return {name: (weight, self._mask(name)) for name, weight in self._weights(matrices).items()}

    def sparsity(self, matrices: Matrices = "both") -> float:
        """Return the share of the weights outside the masks. It synchronises with the device.

        Args:
            matrices: which matrices: ``input_hidden``, ``hidden_hidden`` or ``both``.
        """
        masks = [mask for _, mask in self.masked_weights(matrices).values()]
        return 1.0 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    @torch.no_grad()
    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Set the masks of some matrices, and set the weights outside them to zero.

        Args:
            masks: name of a weight, such as ``weight_hh_l0``, -> mask, bool and of the shape of the weight.

        Raises:
            ValueError: if a name is unknown, or shape or type of a mask does not fit.
        """
        known = self._weights("both")
        for name, mask in masks.items():
            if name not in known:
                raise ValueError(f"masks has the key {name!r}; there are {', '.join(known)}")
            if mask.shape != known[name].shape or mask.dtype != torch.bool:
                raise ValueError(
                    f"masks[{name!r}] is {mask.dtype} {tuple(mask.shape)}; it must be bool {tuple(known[name].shape)}"
                )
        for name, mask in masks.items():
            # momentum may have moved weights that did not exist: those that begin to exist are zeroed as well
            known[name].masked_fill_(~(self._mask(name) & mask), 0.0)
            self._mask(name).copy_(mask)

    @torch.no_grad()
    def prune_(
        self, amount: float, matrices: Matrices = "both", scope: Scope = "global", score: Score = "magnitude"
    ) -> None:
        r"""Mask the weights of the lowest scores.

        .. math:: M \leftarrow M \wedge (s \odot M \ge \theta), \qquad \theta = Q_{amount}(s \odot M)

        with the scores :math:`s = |W|` and the quantile Q, interpolated linearly, of the weights of a scope together.
        So the highest score is always kept, also with an amount of 1, and weights that are masked stay masked.

        Args:
            amount: share of all weights of the matrices that is masked afterwards, in [0, 1].
            matrices: which matrices: ``input_hidden``, ``hidden_hidden`` or ``both``.
            scope: weights that are compared with each other: all of them (``global``), those of each ``layer``, or
                those of each ``matrix``.
            score: ``magnitude``, or ``random`` numbers of torch's global generator, as a control.

        Raises:
            ValueError: if ``amount`` is outside [0, 1], or ``matrices``, ``scope`` or ``score`` is unknown.

        Example:
            >>> layer = MaskedRNN(3, 5, cell="rnn_relu")
            >>> layer.prune_(0.4, "hidden_hidden")
            >>> layer.sparsity("hidden_hidden"), layer.sparsity("input_hidden")
            (0.4, 0.0)
        """
        if not 0.0 <= amount <= 1.0:
            raise ValueError(f"amount is {amount}; give a share of the weights in [0, 1]")
        if score not in get_args(Score):
            raise ValueError(f"score is {score!r}; it must be one of {', '.join(get_args(Score))}")
        groups: dict[str, dict[str, Tensor]] = {}
        for name, (weight, mask) in self.masked_weights(matrices).items():
            group = {"global": "", "layer": name.rpartition("_")[2], "matrix": name}.get(scope)
            if group is None:
                raise ValueError(f"scope is {scope!r}; it must be one of {', '.join(get_args(Scope))}")
            scores = magnitude_score(weight) if score == "magnitude" else random_score(weight)
            groups.setdefault(group, {})[name] = scores * mask
        masks: dict[str, Tensor] = {}
        for sizes in groups.values():
            pooled = torch.cat([size.flatten() for size in sizes.values()])
            threshold = float(np.quantile(pooled.cpu().numpy(), amount))
            masks |= {name: self._mask(name) & (size >= threshold) for name, size in sizes.items()}
        self.set_masks(masks)

    # the layer

    def folded_weights(self) -> list[Tensor]:
        """Return all weights and biases in torch's order, with the masks applied."""
        masks = self.masks
        return [weight * masks[name] if name in masks else weight for name, weight in self.layers.named_parameters()]

    def run(self, x: Tensor, batch_sizes: Tensor | None, state: RecurrentState | None) -> tuple[Tensor, RecurrentState]:
        """Return outputs and state of torch's kernels with the masks applied to the weights."""
        dropout = float(self.layers.dropout)
        return recurrent_layers(self.cell, x, self.folded_weights(), state, batch_sizes, dropout, self.training)
