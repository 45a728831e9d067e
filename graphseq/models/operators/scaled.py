"""Networks on fields in physical units, with scales that are fitted on the training split."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.core.elastic import Elastic

__all__ = ["ScaledFields"]

_KEYS = ("input_mean", "input_std", "output_scale")


class ScaledFields(Recorded, Elastic):
    r"""Wrapper that standardises the input fields of a network and scales its outputs to the units of the targets.

    .. math:: y_c = s_c\, f\bigl((x - \mu) / \sigma\bigr)_c

    with one mean, standard deviation and scale for each channel, so that they apply to any grid. Losses are computed in
    the units of the targets. Outputs are scaled and not shifted: zero stays zero, as on an edge where the solution
    vanishes. The numbers are buffers of this module; data modules of fields fit them on the training split
    (``field_statistics``), and the command line passes them on.

    Source: one of this library; the released code of arXiv 2310.19809 has a mean and a deviation for each point.

    Args:
        network: network from fields (B, in_channels, Y, X) to fields (B, out_channels, Y, X).
        field_statistics: ``input_mean`` and ``input_std`` of each input channel, ``output_scale`` of each output
            channel; None for 0, 1 and 1, to be replaced by those of a checkpoint.

    Shape:
        x (B, in_channels, Y, X) real -> (B, out_channels, Y, X)

    Raises:
        ValueError: if an entry is missing or unknown, a number is not finite, or a deviation or scale is not above 0;
            in ``forward`` if fields have another number of channels.
        TypeError: if ``network`` is not a module.

    Example:
        >>> from graphseq.core import make
        >>> statistics = {"input_mean": [2.0], "input_std": [4.0], "output_scale": [10.0]}
        >>> ScaledFields(make(nn.Identity), statistics)(torch.full((1, 1, 2, 2), 4.0)).unique()
        tensor([5.])
    """

    elastic = _KEYS

    def __init__(self, network: nn.Module, field_statistics: Mapping[str, Sequence[float]] | None = None) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"network is a {type(network).__name__}; give a torch.nn.Module")
        given = {"input_mean": [0.0], "input_std": [1.0], "output_scale": [1.0]}
        given = given if field_statistics is None else {key: list(v) for key, v in field_statistics.items()}
        if set(given) != set(_KEYS) or len(given["input_mean"]) != len(given["input_std"]):
            raise ValueError(
                f"field_statistics has { ({key: len(v) for key, v in given.items()}) } numbers; give input_mean and "
                "input_std of each input channel, and output_scale of each output channel"
            )
        for key in _KEYS[1:]:
            if not all(0 < value < math.inf for value in given[key]):
                raise ValueError(f"{key} is {given[key]}; give finite numbers above 0")
        if not all(map(math.isfinite, given["input_mean"])):
            raise ValueError(f"input_mean is {given['input_mean']}; give finite numbers")
        self.network = network
        self._from_checkpoint = field_statistics is None
        for key, values in given.items():
            self.register_buffer(key, torch.tensor(values).view(-1, 1, 1))
        self.input_mean: Tensor
        self.input_std: Tensor
        self.output_scale: Tensor

    def reset_parameters(self) -> None:
        """Reinitialise the network, if it can be; the scales stay."""
        reset = getattr(self.network, "reset_parameters", None)  # of any network that a user gives
        if callable(reset):
            reset()

    def make_room(self, saved: Mapping[str, Tensor]) -> None:
        """Resize the buffers to the numbers of channels of a saved state, if no statistics were given.

        Args:
            saved: tensors of this module and those inside it, by their names.
        """
        if self._from_checkpoint:
            super().make_room(saved)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output fields.

        Args:
            x: input fields (B, in_channels, Y, X).
        """
        if x.dim() != 4 or len(self.input_mean) not in (1, x.shape[1]):
            raise ValueError(
                f"fields have shape {tuple(x.shape)}, field_statistics input_mean and input_std of "
                f"{len(self.input_mean)} channels; give (B, C, Y, X) with as many channels"
            )
        y: Tensor = self.network((x - self.input_mean) / self.input_std)
        if len(self.output_scale) not in (1, y.shape[1]):
            raise ValueError(
                f"{type(self.network).__name__} returned {tuple(y.shape)}, and field_statistics has output_scale of "
                f"{len(self.output_scale)} channels; the numbers must be equal"
            )
        return self.output_scale * y
