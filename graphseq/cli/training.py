"""``graphseq fit | validate | test | predict``: LightningCLI over tasks and data modules."""

import csv
import importlib
import importlib.util
import logging
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichModelSummary, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from graphseq.bench.building import ConfigError, ConfiguredCLI
from graphseq.cli.checkpoints import (
    check_newest_run,
    checkpoint_of_run,
    claim_run,
    keep_best_files,
    newest_checkpoint,
    run_folder,
)
from graphseq.cli.predicting import CollectPredictions, Format, Split, recorded_argument, write_predictions
from graphseq.cli.refusals import UsageError, reported
from graphseq.core import HARMLESS_WARNINGS
from graphseq.core.checkpoint import Checkpoint, read_checkpoint
from graphseq.core.errors import CheckpointError, DataError
from graphseq.data.base import StoreDataModule
from graphseq.data.cache import complete_or_absent

__all__ = ["GraphseqCLI", "newest_checkpoint", "train"]


class SaveRunConfig(SaveConfigCallback):
    """Saves the config of a training run in its folder, without the checkpoint that the run started from.

    If the saved config held the checkpoint, using it again would silently start from, or test, that checkpoint. Only
    ``fit`` saves one: a ``config.yaml`` in the working directory may be the user's own.

    Args:
        parser: parser of the config.
        config: the parsed config.
        folder: folder of the run; None for that of the trainer's first logger.
        options: further arguments of Lightning's ``SaveConfigCallback``.

    Example:
        >>> issubclass(SaveRunConfig, SaveConfigCallback)
        True
    """

    def __init__(
        self, parser: LightningArgumentParser, config: Namespace, folder: Path | None = None, **options: Any
    ) -> None:
        super().__init__(parser, config, save_to_log_dir=False, **options)
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the config when training starts."""
        if trainer.state.fn == "fit" and (self.folder or trainer.loggers):
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the config into the folder of the run."""
        folder = self.folder or Path(str(trainer.log_dir))
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config.clone()
        config["ckpt_path"] = None
        self.parser.save(config, str(folder / self.config_filename), skip_unset=False, overwrite=True, multifile=False)


class GraphseqCLI(ConfiguredCLI):
    """LightningCLI with graphseq's defaults: sizes linked from data to network, CSV log, checkpoints.

    Args:
        arguments: subcommand and its options.
        run: whether the subcommand is run; False only builds task, data and trainer.

    Example:
        >>> GraphseqCLI.subcommands().keys()
        dict_keys(['fit', 'validate', 'test', 'predict'])
    """

    def __init__(self, arguments: Sequence[str], run: bool = True) -> None:
        self.folder: Path | None = None  # of a run that has no logger with a folder of its own
        self.asked = next(iter(arguments), None)  # the options of this subcommand are all that is parsed
        self._predicted_with: Checkpoint | None = None
        super().__init__(
            list(arguments),
            run=run,
            save_config_callback=SaveRunConfig,
            parser_kwargs={
                "prog": "graphseq",
                "description": "Train and use graphseq tasks; see graphseq --help.",
                "exit_on_error": False,
            },
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; a wrong option or entry becomes a :class:`UsageError`."""
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            own = self._subcommand_parsers.get(args[0], parser) if hasattr(self, "_subcommand_parsers") else parser
            raise UsageError(str(error), list(own.get_defaults().keys())) from error

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        if self.asked in self.subcommands() and subcommand != self.asked:  # each costs a tenth of a second and more
            self._subcommand_method_arguments[subcommand] = []
            return self.init_parser(**kwargs)
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_instantiator(self._data_to_predict, LightningDataModule, subclasses=True)
            parser.add_argument(
                "--split", type=Split | None, default=None,
                help="split to predict, or all for all samples; default test, or all if the data have no targets",
            )  # fmt: skip
            parser.add_argument("--format", type=Format, default="csv", help="file of the predictions: csv or parquet")
            parser.set_defaults({"return_predictions": False})  # they are in the table
        return parser

    def size_of(self, data: object, source: str, target: str, given: Any) -> Any:
        """Return a size of the data, or in ``predict`` that with which the checkpoint was trained.

        Args:
            data: data module.
            source: attribute of the data module.
            target: key of the argument.
            given: value of the argument in the config.
        """
        if self._predicted_with is not None:
            return recorded_argument(self._predicted_with, target, given)
        return super().size_of(data, source, target, given)

    def _data_to_predict(self, data_class: type[LightningDataModule], *args: Any, **kwargs: Any) -> LightningDataModule:
        """Build a data module whose data may lack targets."""
        data, config = data_class(*args, **kwargs), self.config.predict
        if isinstance(data, StoreDataModule):
            return data.for_prediction(config.ckpt_path, config.split)
        if config.split is not None:
            raise ConfigError(
                f"--split {config.split} is for data modules of graphseq; {data_class.__name__} predicts what its "
                "predict_dataloader gives"
            )
        return data

    def before_instantiate_classes(self) -> None:
        """Check the classes that the config names, and resolve ``--ckpt_path last`` and ``best``."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        init_args = config.model.get("init_args", Namespace())
        for name, base in (("optimizer", torch.optim.Optimizer), ("scheduler", _SCHEDULERS)):
            check_class(init_args.get(name), base, f"model.init_args.{name}")
        checkpoint = config.get("ckpt_path")
        if checkpoint in ("last", "best"):
            config["ckpt_path"] = self._checkpoint_of_config(config, checkpoint)
        elif checkpoint is not None and not Path(checkpoint).exists():
            raise CheckpointError(f"there is no checkpoint {checkpoint}; give a file, or 'last' for the newest run's")
        elif checkpoint is None and self.subcommand in ("validate", "test", "predict"):
            warnings.warn(f"graphseq {self.subcommand} without --ckpt_path uses untrained weights", stacklevel=2)
        if config.get("ckpt_path") is not None and Path(config.ckpt_path).is_file():  # a strategy may write folders
            content = read_checkpoint(config.ckpt_path)
            self._predicted_with = content if self.subcommand == "predict" else None

    def _checkpoint_of_config(self, config: Namespace, which: str) -> str:
        """Return the last or best checkpoint of the run that saved the config, else of the config's newest run."""
        resumable = self.subcommand == "fit"
        files = config.get("config") or []
        run = run_folder(Path(str(files[0]))) if files else None
        if run is not None:
            return checkpoint_of_run(run, which, resumable)
        try:
            root, name = self._run_root(config), self._run_name(config)
            given = self.parser if self.subcommand is None else self._subcommand_parsers[self.subcommand]
            check_newest_run(root, name, which, yaml.safe_load(given.dump(config, skip_unset=False)))
            return newest_checkpoint(root, name, which, resumable)
        except CheckpointError as error:
            places = [f"dirpath {place}" for place in _values(config.trainer.get("callbacks"), "dirpath")]
            places += [f"save_dir {place}" for place in _values(config.trainer.get("logger"), "save_dir")]
            if not places:
                raise
            raise CheckpointError(
                f"{error}. The config names another place for its runs: {', '.join(places)}"
            ) from None

    def _run_root(self, config: Namespace) -> Path:
        return Path(config.trainer.get("default_root_dir") or "runs")

    def _run_name(self, config: Namespace) -> str:
        files = config.get("config") or []
        if files:
            return Path(str(files[0])).stem
        return config.model["class_path"].rsplit(".", 1)[-1].lower()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with the CSV log, checkpoints and, in a terminal, a progress bar."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        given = self._get(self.config_init, "trainer", default={})
        in_terminal = sys.stderr.isatty() and sys.stdout.isatty()
        callbacks: list[Callback] = list(given.get("callbacks") or [])
        debugging = bool(given.get("fast_dev_run"))
        fitting = self.subcommand == "fit" and not debugging
        loggers = given.get("logger")
        if fitting and not _has_folder(loggers):
            self.folder = rank_zero_only(claim_run)(self._run_root(config), self._run_name(config))
            self.save_config_kwargs["folder"] = self.folder
        if loggers in (None, True):
            kwargs["logger"] = self._loggers(config) if fitting else False
        if given.get("default_root_dir") is None:  # Lightning would take the working directory
            kwargs["default_root_dir"] = str(self.folder or self._run_root(config))
        if given.get("enable_progress_bar") is None:
            kwargs["enable_progress_bar"] = in_terminal
            if in_terminal:
                callbacks.append(RichProgressBar())
        if given.get("enable_model_summary") is None:
            kwargs["enable_model_summary"] = in_terminal and self.subcommand == "fit"
            if kwargs["enable_model_summary"]:
                callbacks.append(RichModelSummary())
        if given.get("enable_checkpointing") is None and not any(isinstance(c, ModelCheckpoint) for c in callbacks):
            kwargs["enable_checkpointing"] = fitting
            if kwargs["enable_checkpointing"]:
                callbacks += self._checkpoints(None if self.folder is None else self.folder / "checkpoints")
        if self.subcommand == "predict":
            self.collected = CollectPredictions(config["format"])
            callbacks.append(self.collected)
        if not in_terminal:
            logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        try:
            return super().instantiate_trainer(callbacks=callbacks, **kwargs)
        except Exception:
            self._discard_empty_folder()
            raise

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except BaseException:
            self._discard_empty_folder()
            raise

    def _discard_empty_folder(self) -> None:
        """Remove the folder of a run that has ended before it wrote a file."""
        if self.folder is not None and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _loggers(self, config: Namespace) -> list[Any]:
        root, name = self._run_root(config), self._run_name(config)
        version = None if self.folder is None else self.folder.name  # other processes do not write
        loggers: list[Any] = [CSVLogger(root, name=name, version=version, flush_logs_every_n_steps=1)]
        if importlib.util.find_spec("tensorboard") is not None:
            loggers.append(TensorBoardLogger(root, name=name, version=loggers[0].version))
        return loggers

    def _checkpoints(self, folder: Path | None) -> list[Callback]:
        """Return a checkpoint callback for the best epoch and one for the last.

        Two, since Lightning's ``save_last=True`` writes ``last.ckpt`` only when the best one changes: a run that is
        killed later would resume from there and lose the epochs since.
        """
        last = ModelCheckpoint(folder, filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False)
        if not len(getattr(self.datamodule, "splits", {"val": [0]})["val"]):
            return [last]
        task = self.model
        return [ModelCheckpoint(folder, filename="{epoch}-{step}", monitor=task.monitor, mode=task.mode), last]

    def before_fit(self) -> None:
        """Print which run is resumed, and from where."""
        checkpoint = self.config[self.subcommand].get("ckpt_path")
        if checkpoint is None or not self.trainer.is_global_zero or not Path(checkpoint).is_file():
            return
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        run = run_folder(Path(checkpoint)) or checkpoint
        print(f"resumes     {run} after epoch {saved['epoch']}, step {saved['global_step']}")

    def after_validate(self) -> None:
        """Keep the validation metrics in the run's log."""
        self._keep_metrics()

    def after_test(self) -> None:
        """Keep the test metrics in the run's log, where ``graphseq plot`` finds them."""
        self._keep_metrics()

    def _keep_metrics(self) -> None:
        checkpoint = self.config[self.subcommand].get("ckpt_path")
        run = run_folder(Path(checkpoint)) if checkpoint else None
        if run is None or not (run / "metrics.csv").is_file() or not self.trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        trained = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        add_row(run / "metrics.csv", {"epoch": trained["epoch"], "step": trained["global_step"], **metrics})

    def after_predict(self) -> None:
        """Write the predictions into the folder of the run, and print their path."""
        table = self.collected.table
        if table is None:
            raise DataError("nothing was predicted; the data module has no samples to predict")
        config = self.config[self.subcommand]
        run = run_folder(Path(config["ckpt_path"])) if config.get("ckpt_path") else None
        folder = run or claim_run(self._run_root(config), self._run_name(config))
        frame = table.frame()
        print(
            f"predictions {write_predictions(frame, folder, config['format'])}  {len(frame)} rows, split {table.split}"
        )

    def after_fit(self) -> None:
        """Print the metrics, the folder of the run and its checkpoints."""
        keep_best_files(self.trainer)
        folder = str(self.folder) if self.folder else self.trainer.log_dir  # all processes ask for the latter
        if not self.trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in sorted(self.trainer.callback_metrics.items())}
        print("  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        if folder is None or not (self.folder or self.trainer.loggers):
            return
        print(f"run         {folder}")
        for kept in self.trainer.checkpoint_callbacks:
            if isinstance(kept, ModelCheckpoint) and kept.best_model_path:
                named, score = "last", ""
                if kept.monitor is not None and kept.best_model_score is not None:
                    named, score = "best", f"  {kept.monitor} {float(kept.best_model_score):.4f}"
                print(f"{named}        {_short_path(kept.best_model_path)}{score}")
        if (Path(folder) / "metrics.csv").is_file():
            print(f"look at it  graphseq plot {shlex.quote(folder)}")


def _short_path(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _has_folder(loggers: Any) -> bool:
    """Whether the first of the given loggers has a folder for each run, beside which checkpoints are kept."""
    first = loggers[0] if isinstance(loggers, list) and loggers else loggers
    return isinstance(first, CSVLogger | TensorBoardLogger)


def _values(entries: Any, name: str) -> list[str]:
    """Values of an argument in a config entry that holds one class or a list of classes."""
    listed = entries if isinstance(entries, list) else [entries]
    arguments = [entry.get("init_args") for entry in listed if isinstance(entry, Namespace)]
    return [str(given[name]) for given in arguments if given and given.get(name) is not None]


# warnings of Lightning and torch that do not apply to these runs
_HARMLESS = (
    *HARMLESS_WARNINGS,
    r".*callbacks used to create the checkpoint need to be provided",  # testing keeps no checkpoints
)
_SCHEDULERS = (torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)


def check_class(value: Any, base: type | tuple[type, ...], where: str) -> None:
    """Refuse a config entry that names anything but a class of the expected kind.

    A callable type in a signature would let a config name any function, which would then be called.

    Args:
        value: parsed entry: None, a ``Namespace`` with ``class_path``, or a string.
        base: required base class.
        where: key of the entry, for the message.

    Raises:
        ConfigError: if the entry names something other than a subclass of ``base``.

    Example:
        >>> check_class("os.system", torch.optim.Optimizer, "optimizer")
        Traceback (most recent call last):
        graphseq.bench.building.ConfigError: optimizer names os.system; ...
    """
    if value is None:
        return
    path = value.get("class_path") if isinstance(value, Namespace | dict) else value
    found: Any = None
    if isinstance(path, type):
        found = path
    elif isinstance(path, str) and "." in path:
        module, _, name = path.rpartition(".")
        found = getattr(sys.modules.get(module), name, None) or _imported(module, name)
    if not (isinstance(found, type) and issubclass(found, base)):
        kinds = base if isinstance(base, tuple) else (base,)
        raise ConfigError(
            f"{where} names {path}; "
            f"it must name a class that descends from {' or '.join(kind.__name__ for kind in kinds)}, "
            "as class_path with init_args"
        )


def _imported(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def add_row(log: Path, row: dict[str, Any]) -> None:
    r"""Append a row to a CSV log, with new columns where it needs them; the file is replaced only when complete.

    Args:
        log: CSV file with a header.
        row: values by the name of their column.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Path(folder) / "metrics.csv"
        ...     _ = log.write_text("epoch,train/loss\n0,0.5\n")
        ...     add_row(log, {"epoch": 0, "test/acc": 0.9})
        ...     log.read_text().split()
        ['epoch,train/loss,test/acc', '0,0.5,', '0,,0.9']
    """
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(dict.fromkeys([*(rows[0] if rows else []), *row]))
    with complete_or_absent(log) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows([*rows, row])


def train(arguments: Sequence[str]) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict``; what they refuse is printed in at most six lines.

    Args:
        arguments: subcommand and its options; ``--verbose`` for whole messages and tracebacks.

    Example:
        >>> train(["fit", "--config", "missing.yaml"])
        2
    """
    for known in _HARMLESS:
        warnings.filterwarnings("ignore", message=known)
    return reported(arguments[0], arguments, GraphseqCLI)
