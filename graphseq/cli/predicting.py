"""``graphseq predict``: the predictions of a run as a table in its folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from graphseq.core.errors import DataError, OptionalDependencyError, UnsupportedStrategyError
from graphseq.core.protocols import DataSource
from graphseq.data.cache import complete_or_absent
from graphseq.tasks.base import Task
from graphseq.tasks.predictions import PredictionTable

if TYPE_CHECKING:
    import pandas

__all__ = ["CollectPredictions", "Format", "write_predictions"]

Format = Literal["csv", "parquet"]


class CollectPredictions(Callback):
    """Makes a table of what a trainer predicts, batch by batch.

    Args:
        format: kind of the file that the table will be written to, checked before the prediction.

    Raises:
        OptionalDependencyError: if the package that writes the kind of file is missing.

    Example:
        >>> CollectPredictions("csv").table is None
        True
    """

    def __init__(self, format: Format) -> None:
        self.table: PredictionTable | None = None
        if format == "parquet":
            try:
                import pyarrow  # noqa: F401
            except ImportError:
                raise OptionalDependencyError("pyarrow", "predictions.parquet") from None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a table.

        Raises:
            UnsupportedStrategyError: if the run has several processes, each of which has a part of the samples.
            DataError: if the split to predict is empty.
        """
        if trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"a table of predictions is written by one process, {trainer.world_size} were given: use devices=1"
            )
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer's methods
        splits = data.splits if isinstance(data, DataSource) else {}
        split = "predict" if "predict" in splits else "test"
        if split in splits and not len(splits[split]):
            raise DataError(f"the {split} split of {type(data).__name__} is empty, so there is nothing to predict")
        self.table = PredictionTable(split, splits.get(split))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Add the rows of a batch."""
        if self.table is not None and isinstance(pl_module, Task):
            data = trainer.datamodule  # type: ignore[attr-defined]
            self.table.add(batch, pl_module.prediction_rows(batch, outputs, self.table.split, data))


def write_predictions(table: "pandas.DataFrame", folder: Path, format: Format) -> Path:
    """Write a table of predictions into the folder of a run, and return its path; the file is whole or absent.

    Args:
        table: table of predictions.
        folder: folder of the run.
        format: kind of the file, ``csv`` or ``parquet``.

    Example:
        >>> import tempfile
        >>> import pandas
        >>> write_predictions(pandas.DataFrame({"id": [1]}), Path(tempfile.mkdtemp()), "csv").name
        'predictions.csv'
    """
    path = folder / f"predictions.{format}"
    with complete_or_absent(path) as temporary:
        if format == "csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    return path
