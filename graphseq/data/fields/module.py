"""Base of data modules of fields: inputs and outputs of operators on one grid."""

from abc import abstractmethod
from typing import Unpack

import torch
from torch import Tensor

from graphseq.data.base import DataOptions, StoreDataModule
from graphseq.data.store import TensorStore

__all__ = ["FieldDataModule"]


class FieldDataModule(StoreDataModule):
    """Base of data modules whose samples are fields on one grid: inputs, and what an operator makes of them.

    A subclass defines :meth:`fields`. Fields are in their own units; :attr:`field_statistics`, fitted on the training
    split, are for a network that scales them (:class:`graphseq.models.ScaledFields`).

    Args:
        options: arguments of :class:`StoreDataModule`.

    Yields:
        inputs float32 (B, C, Y, X) and outputs float32 (B, C', Y, X).

    Example:
        >>> class Doubled(FieldDataModule):
        ...     def fields(self):
        ...         x = torch.randn(10, 1, 8, 8)
        ...         return x, 2 * x, {name: torch.arange(first, first + 3) for first, name in
        ...                           enumerate(("train", "val", "test"))}
        >>> data = Doubled(batch_size=2)
        >>> data.num_features, data.num_outputs, sorted(data.field_statistics)
        (1, 1, ['input_mean', 'input_std', 'output_scale'])
    """

    def __init__(self, **options: Unpack[DataOptions]) -> None:
        super().__init__(**options)

    @abstractmethod
    def fields(self) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Return inputs (N, C, Y, X), outputs (N, C', Y, X), and positions of the samples of each split.

        Outputs may be None in prediction.
        """
        raise TypeError(f"{type(self).__name__} must define fields()")

    def read(self) -> tuple[TensorStore, dict[str, Tensor]]:
        """Return the fields in float32, and their splits."""
        x, y, splits = self.fields()
        return TensorStore(*(field.float() for field in (x, y) if field is not None)), splits

    @property
    def num_features(self) -> int:
        """Number of channels of the inputs."""
        return int(self._sample[0].shape[1])

    @property
    def num_outputs(self) -> int:
        """Number of channels of the outputs."""
        return int(self._sample[-1].shape[1])

    @property
    def _sample(self) -> tuple[Tensor, ...]:
        return self.store.take(torch.tensor([0]))

    @property
    def field_statistics(self) -> dict[str, list[float]]:
        """Of each channel over the training split: mean and deviation of inputs, root mean square of outputs.

        A channel that is constant there has 1 for its deviation, one that is zero 1 for its scale; unknown outputs
        (NaN) do not count.
        """
        x, y = (field.double().cpu().transpose(0, 1).flatten(1) for field in self.store.take(self.splits["train"]))
        std, scale = x.std(1, correction=0), y.square().nanmean(1).sqrt()
        return {
            "input_mean": x.mean(1).tolist(),
            "input_std": torch.where((x != x[:, :1]).any(1), std, 1.0).tolist(),
            "output_scale": torch.where(scale > 0, scale, 1.0).tolist(),
        }
