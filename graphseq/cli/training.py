"""``graphseq fit | validate | test | predict``: LightningCLI over tasks and data modules."""

import csv
import importlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichModelSummary, RichProgressBar
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from graphseq.bench.building import ConfigError, ConfiguredCLI
from graphseq.cli.checkpoints import checkpoint_of_run, keep_best_files, newest_checkpoint, run_folder
from graphseq.core.errors import CheckpointError, DataError, OptionalDependencyError, UnsupportedStrategyError
from graphseq.data.cache import complete_or_absent

__all__ = ["ACTIONABLE", "GraphseqCLI", "newest_checkpoint", "train"]


class SaveRunConfig(SaveConfigCallback):
    """Saves the config of a training run in its folder, without the checkpoint that the run started from.

    If the saved config held the checkpoint, using it again would silently start from, or test, that checkpoint. Without
    a folder of the run (testing, or no logger) nothing is saved: Lightning would
    write a ``config.yaml`` into the working directory, over one of the user's.

    Example:
        >>> issubclass(SaveRunConfig, SaveConfigCallback)
        True
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the config when training starts."""
        if trainer.state.fn != "fit" or not trainer.loggers:
            return
        self.config = self.config.clone()
        self.config["ckpt_path"] = None
        super().setup(trainer, pl_module, stage)


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
        super().__init__(
            list(arguments),
            run=run,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "graphseq", "description": "Train and use graphseq tasks; see graphseq --help."},
        )

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

    def _checkpoint_of_config(self, config: Namespace, which: str) -> str:
        """Return the last or best checkpoint of the run that saved the config, else of the config's newest run."""
        resumable = self.subcommand == "fit"
        files = config.get("config") or []
        run = run_folder(Path(str(files[0]))) if files else None
        if run is not None:
            return checkpoint_of_run(run, which, resumable)
        try:
            return newest_checkpoint(self._run_root(config), self._run_name(config), which, resumable)
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
        if given.get("logger") in (None, True):
            kwargs["logger"] = self._loggers(config) if self.subcommand == "fit" and not debugging else False
        if given.get("enable_progress_bar") is None:
            kwargs["enable_progress_bar"] = in_terminal
            if in_terminal:
                callbacks.append(RichProgressBar())
        if given.get("enable_model_summary") is None:
            kwargs["enable_model_summary"] = in_terminal and self.subcommand == "fit"
            if kwargs["enable_model_summary"]:
                callbacks.append(RichModelSummary())
        if given.get("enable_checkpointing") is None and not any(isinstance(c, ModelCheckpoint) for c in callbacks):
            kwargs["enable_checkpointing"] = self.subcommand == "fit" and not debugging
            if kwargs["enable_checkpointing"]:
                callbacks += self._checkpoints()
        if not in_terminal:
            logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def _loggers(self, config: Namespace) -> list[Any]:
        root, name = self._run_root(config), self._run_name(config)
        loggers: list[Any] = [CSVLogger(root, name=name, flush_logs_every_n_steps=1)]
        if importlib.util.find_spec("tensorboard") is not None:
            from lightning.pytorch.loggers import TensorBoardLogger

            loggers.append(TensorBoardLogger(root, name=name, version=f"version_{loggers[0].version}"))
        return loggers

    def _checkpoints(self) -> list[Callback]:
        """Return a checkpoint callback for the best epoch and one for the last.

        Two, since Lightning's ``save_last=True`` writes ``last.ckpt`` only when the best one changes: a run that is
        killed later would resume from there and lose the epochs since.
        """
        last = ModelCheckpoint(filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False)
        if not len(getattr(self.datamodule, "splits", {"val": [0]})["val"]):
            return [last]
        return [ModelCheckpoint(filename="{epoch}-{step}", monitor=self.model.monitor, mode=self.model.mode), last]

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

    def after_fit(self) -> None:
        """Print the metrics, the folder of the run and its checkpoints."""
        keep_best_files(self.trainer)
        folder = self.trainer.log_dir
        if folder is None or not self.trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in sorted(self.trainer.callback_metrics.items())}
        print("  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        print(f"run         {folder}")
        for kept in self.trainer.checkpoint_callbacks:
            if isinstance(kept, ModelCheckpoint) and kept.best_model_path:
                named, score = "last", ""
                if kept.monitor is not None and kept.best_model_score is not None:
                    named, score = "best", f"  {kept.monitor} {float(kept.best_model_score):.4f}"
                print(f"{named}        {kept.best_model_path}{score}")
        print(f"look at it  graphseq plot {folder}")


def _values(entries: Any, name: str) -> list[str]:
    """Values of an argument in a config entry that holds one class or a list of classes."""
    listed = entries if isinstance(entries, list) else [entries]
    arguments = [entry.get("init_args") for entry in listed if isinstance(entry, Namespace)]
    return [str(given[name]) for given in arguments if given and given.get(name) is not None]


# warnings of Lightning and torch that do not apply to these runs
_HARMLESS = (
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's own use of torch
    r".*torch.jit.script. is deprecated",  # PyG's own use of torch
    r".*is smaller than the logging interval",  # losses are logged once an epoch
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


ACTIONABLE = (
    CheckpointError,
    ConfigError,
    DataError,
    FloatingPointError,
    OptionalDependencyError,
    UnsupportedStrategyError,
)
"""Errors whose message names the cause and what to do: the command line prints it without a traceback."""


def train(arguments: Sequence[str]) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict``; expected errors are printed without a traceback.

    Args:
        arguments: subcommand and its options.

    Example:
        >>> train(["fit", "--config", "missing.yaml"])
        2
    """
    for known in _HARMLESS:
        warnings.filterwarnings("ignore", message=known)
    try:
        GraphseqCLI(arguments)
    except SystemExit as stop:  # jsonargparse has printed what is wrong
        return stop.code if isinstance(stop.code, int) else 2
    except ACTIONABLE as error:
        print(f"graphseq {arguments[0]}: {error}", file=sys.stderr)
        return 1
    return 0
