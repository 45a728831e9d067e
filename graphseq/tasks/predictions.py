"""Tables of predictions: a row for each sample with its id, split, target where known, and the outputs by name."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from graphseq.core.batches import batch_field, batch_size
from graphseq.core.errors import DataError
from graphseq.core.protocols import DataSource

if TYPE_CHECKING:
    import pandas

__all__ = ["PredictionRows"]

Column = Tensor | np.ndarray | Sequence[object]


@dataclass
class PredictionRows:
    """Rows of a table of predictions that one batch gives.

    Args:
        columns: columns by name, each with R entries; a tensor (R, K) under one name gives the columns ``name_0``, ...
        sample: number of the row's sample within the batch, int64 (R,); None where each sample has one row.
        ids: id of each row; None for the position of its sample in the data set.
        count: number of samples of the batch; None for that of :func:`graphseq.core.batches.batch_size`.

    Example:
        >>> PredictionRows({"p_cat": torch.tensor([0.3, 0.7])}).sample is None
        True
    """

    columns: dict[str, Column]
    sample: Tensor | None = None
    ids: Column | None = None
    count: int | None = None


@runtime_checkable
class NamedClasses(Protocol):
    """Data module that knows the names of its classes.

    Example:
        >>> class Animals:
        ...     class_names = ["cat", "dog"]
        >>> isinstance(Animals(), NamedClasses)
        True
    """

    @property
    def class_names(self) -> Sequence[str]:
        """Name of each class; empty where targets are not classes."""


@runtime_checkable
class NamedTargets(Protocol):
    """Data module that knows the names of several targets of a sample.

    Example:
        >>> class Molecules:
        ...     target_names = ["solubility"]
        >>> isinstance(Molecules(), NamedTargets)
        True
    """

    @property
    def target_names(self) -> Sequence[str]:
        """Name of each target."""


def output_names(data: object, count: int) -> list[str]:
    """Return the names of a task's outputs: those of the data module, else numbers from 0.

    Args:
        data: data module, or anything else.
        count: number of outputs.

    Example:
        >>> output_names(None, 2)
        ['0', '1']
    """
    for names in (
        data.class_names if isinstance(data, NamedClasses) else None,
        data.target_names if isinstance(data, NamedTargets) else None,
    ):
        if names is not None and len(names) == count:
            return [str(name) for name in names]
    return [str(number) for number in range(count)]


def known_target(batch: object) -> Tensor | None:
    """Return the target of a batch; None where it has none.

    Args:
        batch: one batch.

    Example:
        >>> known_target({"x": torch.ones(2)}) is None
        True
        >>> known_target((torch.ones(2, 3), torch.tensor([0, 1])))
        tensor([0, 1])
    """
    if isinstance(batch, tuple | list):
        return batch[-1] if len(batch) > 1 else None
    found = batch_field(batch, "y")
    return found if isinstance(found, Tensor) else None


@dataclass
class PredictionTable:
    """Collects the rows of batch after batch, in the order of a split.

    Args:
        split: name of the split.
        positions: position in the data set of each sample of the split, int64 (N,); None to count from 0.

    Example:
        >>> table = PredictionTable("test", torch.tensor([7, 9]))
        >>> table.add((torch.ones(2, 3), torch.zeros(2)), PredictionRows({"prediction": torch.tensor([0.5, 1.5])}))
        >>> table.frame().to_csv(index=False).split()
        ['id,split,prediction', '7,test,0.5', '9,test,1.5']
    """

    split: str
    positions: Tensor | None = None
    _parts: list[dict[str, np.ndarray]] = field(default_factory=list)
    _seen: int = 0

    def add(self, batch: object, rows: PredictionRows) -> None:
        """Add the rows of the next batch.

        Args:
            batch: batch of the predictions.
            rows: rows that the task made of it.

        Raises:
            DataError: if the columns differ in length.
        """
        count = batch_size(batch) if rows.count is None else rows.count
        columns = dict(_flat(rows.columns))
        if rows.ids is None:
            here = torch.arange(self._seen, self._seen + count)
            samples = here if self.positions is None else self.positions.cpu()[here]
            columns = {"id": _array(samples if rows.sample is None else samples[rows.sample.cpu()])} | columns
        else:
            columns = {"id": _array(rows.ids)} | columns
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(f"columns of predictions differ in length: {lengths}; each row needs an entry in each")
        self._seen += count
        self._parts.append(columns)

    def frame(self) -> "pandas.DataFrame":
        """Return the table."""
        import pandas

        names = list(self._parts[0]) if self._parts else ["id"]
        joined = {name: [part[name] for part in self._parts] for name in names}
        table = pandas.DataFrame({name: np.concatenate(parts) if parts else [] for name, parts in joined.items()})
        table.insert(1, "split", self.split)
        return table


def _flat(columns: dict[str, Column]) -> Iterable[tuple[str, np.ndarray]]:
    for name, column in columns.items():
        values = _array(column)
        if values.ndim == 1:
            yield name, values
        else:
            flat = values.reshape(len(values), -1)
            yield from ((f"{name}_{number}", flat[:, number]) for number in range(flat.shape[1]))


def _array(column: Column) -> np.ndarray:
    if isinstance(column, Tensor):
        column = column.detach().cpu()
        return (column.float() if column.dtype in (torch.bfloat16, torch.float16) else column).numpy()
    return np.asarray(column, dtype=None if isinstance(column, np.ndarray) else object)


def plain_rows(output: object, batch: object) -> PredictionRows:
    """Return the rows of a procedure that does not define the meaning of its outputs: each output unchanged.

    Args:
        output: output of the network.
        batch: batch of the output.

    Raises:
        DataError: if the output is not one tensor with one row for each sample.

    Example:
        >>> list(plain_rows(torch.zeros(2, 3), (torch.ones(2, 4), torch.tensor([0, 1]))).columns)
        ['target', 'output']
    """
    if not isinstance(output, Tensor) or output.dim() == 0 or len(output) != batch_size(batch):
        given = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise DataError(
            f"the output is {given} for {batch_size(batch)} samples; a table needs one row for each. Define "
            "prediction_rows(batch, output, names) in the task"
        )
    target = known_target(batch)
    known: dict[str, Column] = {} if target is None or len(target) != len(output) else {"target": target}
    return PredictionRows({**known, "output": output})


@runtime_checkable
class DescribesOutputs(Protocol):
    """Kind of target that defines the meaning of the outputs of a network, such as :class:`graphseq.tasks.Classes`.

    Example:
        >>> from graphseq.tasks import Classes
        >>> isinstance(Classes(3), DescribesOutputs)
        True
    """

    def columns(self, output: object, target: Tensor | None, network: nn.Module, data: object) -> dict[str, Column]:
        """Return columns of a table of predictions, with one entry for each sample.

        Args:
            output: output of the network.
            target: targets of the batch; None where they are not known.
            network: network, named in error messages.
            data: data module, which may know the names of the outputs.
        """


class Predicting(LightningModule):
    """Predictions of a task as a table; a base class of :class:`graphseq.tasks.Task`.

    Example:
        >>> issubclass(Predicting, LightningModule)
        True
    """

    model: nn.Module

    def prediction_rows(self, batch: Any, output: Any, split: str, data: object = None) -> PredictionRows:
        """Return the rows of a table of predictions that a batch gives.

        Args:
            batch: batch of the predictions, with or without targets.
            output: result of :meth:`predict_step`.
            split: name of the split.
            data: data module, which may know the names of classes or targets.
        """
        kind = getattr(self, "target_kind", None)  # a procedure of a user's own may have none
        if not isinstance(kind, DescribesOutputs):
            return plain_rows(output, batch)
        columns = kind.columns(output, known_target(batch), self.model, data)
        return PredictionRows({**texts_of_samples(batch, batch_size(batch)), **columns})

    def prediction_batches(self, data: DataSource, split: str, size: int) -> Iterator[object]:
        """Yield the batches of a split in its order, on the device of the task and without augmentation.

        Args:
            data: data module.
            split: name of the split.
            size: number of samples of a batch.
        """
        for part in positions_of(data, split).split(size):
            batch = data.transfer_batch_to_device(data.store.take(part), self.device, 0)
            yield data.transformed(batch, "test")

    @torch.no_grad()
    def predictions(self, data: DataSource, split: str = "test", *, batch_size: int = 256) -> "pandas.DataFrame":
        """Return the predictions for a split as a table with one row for each sample, node, step or event.

        Columns: ``id``, the position of the sample in the data set (for nodes the number of the node); ``split``;
        where the data have them texts such as ``smiles``; ``target`` where it is known; then the outputs by name:

        * classes: ``prediction`` and a probability ``p_<class>`` for each;
        * several labels: ``p_<label>`` for each, and ``target_<label>``;
        * numbers: ``prediction``, or ``prediction_<name>`` for each of several;
        * events: ``src``, ``dst``, ``t`` as in the source, the probability ``p``, and the ``rank`` among the
          ``candidates`` of the event, itself and its negatives.

        A network with a state sees all events before the split, and gets its state back afterwards.

        Args:
            data: data module; one of the data of a trained task, without targets, is read with
                ``data.for_prediction(checkpoint)``.
            split: name of the split: ``train``, ``val`` or ``test``, another one of the data module, or ``all`` for all
                samples.
            batch_size: number of samples predicted at once; streams keep the batches of the data module.

        Raises:
            DataError: if there is no such split or it is empty, or the procedure has no predictions for samples.

        Example:
            >>> from graphseq.data import SyntheticEventsDataModule
            >>> from graphseq.models import EdgeBank
            >>> from graphseq.tasks import TemporalLinkPrediction
            >>> data = SyntheticEventsDataModule(num_events=300)
            >>> list(TemporalLinkPrediction(EdgeBank()).predictions(data).columns)
            ['id', 'split', 'src', 'dst', 't', 'p', 'rank', 'candidates']
        """
        if not isinstance(data, DataSource):
            raise TypeError(f"data is a {type(data).__name__}; give a data module with a store and splits")
        positions = positions_of(data, split)
        if not len(positions):
            sizes = ", ".join(f"{name} {len(index)}" for name, index in data.splits.items())
            raise DataError(f"split is {split!r}, which has no samples; the splits are {sizes}; or give 'all'")
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        table = PredictionTable(split, positions)
        try:
            with closing(self.prediction_batches(data, split, batch_size)) as batches:  # type: ignore[type-var]
                for number, batch in enumerate(batches):
                    table.add(batch, self.prediction_rows(batch, self.predict_step(batch, number), split, data))
        finally:
            for module, mode in modes:
                module.training = mode
        return table.frame()


def positions_of(data: DataSource, split: str) -> Tensor:
    """Return the positions of the samples of a split, int64; none if there is no such split.

    Args:
        data: data module.
        split: name of the split, ``all`` for all samples.

    Example:
        >>> from graphseq.data import SyntheticEventsDataModule
        >>> len(positions_of(SyntheticEventsDataModule(num_events=300), "all"))
        300
    """
    if split == "all":
        return torch.arange(len(data.store))
    return data.splits.get(split, torch.arange(0))


def texts_of_samples(batch: Any, count: int) -> dict[str, Column]:
    """Return the fields of a PyG batch that hold one text for each graph, such as ``smiles``.

    Args:
        batch: any batch.
        count: number of samples of the batch.

    Example:
        >>> from torch_geometric.data import Batch, Data
        >>> texts_of_samples(Batch.from_data_list([Data(x=torch.ones(1, 1), smiles="CO")]), 1)
        {'smiles': ['CO']}
    """
    keys = batch.keys() if hasattr(batch, "num_graphs") and callable(getattr(batch, "keys", None)) else []
    fields = {name: batch[name] for name in keys}
    return {
        name: value
        for name, value in fields.items()
        if isinstance(value, list) and len(value) == count and all(isinstance(entry, str) for entry in value)
    }
