"""``graphseq predict``: the predictions of a run as a table in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from graphseq.core.errors import OptionalDependencyError, UnsupportedStrategyError
from graphseq.core.protocols import PredictsSplit
from graphseq.data.cache import complete_or_absent
from graphseq.tasks.base import Task
from graphseq.tasks.predictions import PredictionTable

if TYPE_CHECKING:
    import pandas

__all__ = ["CollectPredictions", "Format", "Split", "recorded_argument", "write_predictions"]

Format = Literal["csv", "parquet"]
Split = Literal["train", "val", "test", "predict", "all"]


def recorded_argument(checkpoint: Mapping[str, Any], target: str, default: Any = None) -> Any:
    """Return an argument with which the task of a checkpoint was built.

    Args:
        checkpoint: contents of the checkpoint.
        target: key of the argument in a config, such as ``model.init_args.num_outputs``.
        default: result if the argument was not given.

    Example:
        >>> task = {"model": {"class_path": "graphseq.models.MLP", "init_args": {"in_features": 4}}}
        >>> recorded_argument({"hyper_parameters": task}, "model.init_args.model.init_args.in_features")
        4
    """
    found: Any = checkpoint.get("hyper_parameters", {})
    for name in target.removeprefix("model.init_args.").split("."):
        if not isinstance(found, Mapping) or name not in found:
            return default
        found = found[name]
    return found


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
        """
        if trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"a table of predictions is written by one process, {trainer.world_size} were given: use devices=1"
            )
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer's methods
        if not isinstance(data, PredictsSplit):
            self.table = PredictionTable("test")
            return
        split = data.prediction_split
        self.table = PredictionTable(split, data.split_positions(split))

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
