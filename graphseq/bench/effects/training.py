"""Training of one cell of an effect from a config as by ``graphseq fit``, and its test at the best epoch."""

import contextlib
import copy
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from graphseq.bench.building import ConfiguredCLI
from graphseq.bench.directions import lower_is_better
from graphseq.bench.experiment import Row

__all__ = ["build", "fit_and_test", "overridden", "quiet"]

_QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def overridden(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with some entries replaced.

    Below a class, ``init_args`` may be left out of a key: ``model.model.memory_dim`` stands for
    ``model.init_args.model.init_args.memory_dim``.

    Args:
        config: parsed YAML config, which is not changed.
        overrides: new value of each dotted key; None removes the entry.

    Example:
        >>> config = {"data": {"class_path": "graphseq.data.TUDataModule", "init_args": {"name": "NCI1"}}}
        >>> overridden(config, {"data.batch_size": 32, "trainer.max_epochs": 1})["data"]["init_args"]
        {'name': 'NCI1', 'batch_size': 32}
    """
    made: dict[str, Any] = copy.deepcopy(dict(config))
    for key, value in overrides.items():
        *parents, last = key.split(".")
        node = made
        for part in parents:
            node = _arguments(node, part)
            node = node.setdefault(part, {})
        node = _arguments(node, last)
        if value is None:
            node.pop(last, None)
        else:
            node[last] = copy.deepcopy(value)
    return made


def _arguments(node: dict[str, Any], part: str) -> dict[str, Any]:
    """Return the dictionary that holds an argument of a class."""
    if "class_path" in node and part not in ("class_path", "init_args"):
        return node.setdefault("init_args", {})
    return node


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Context that silences Lightning's messages on devices, workers and seeds.

    Example:
        >>> with quiet():
        ...     _ = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the number of workers, which nobody asked for
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def build(
    config: Mapping[str, Any], callbacks: Sequence[Callback] = (), **trainer: Any
) -> tuple[LightningModule, LightningDataModule, Trainer]:
    """Return task, data module and trainer of a config; global generators are seeded by its ``seed_everything``.

    Args:
        config: parsed YAML config.
        callbacks: further callbacks for the trainer.
        trainer: arguments of the trainer, in place of those of the config.

    Example:
        >>> build({"model": {"class_path": "graphseq.tasks.Classification"}, "data": {}})  # doctest: +SKIP
    """
    given = {**config, "trainer": {**config.get("trainer", {}), **_QUIET, **trainer}}
    cli = ConfiguredCLI(
        given, run=False, save_config_callback=None, trainer_defaults={"callbacks": list(callbacks)},
        parser_kwargs={"exit_on_error": False},
    )  # fmt: skip
    return cli.model, cli.datamodule, cli.trainer


class _Curve(Callback):
    """Records the monitored score after each validation, and the CPU time of each training epoch."""

    def __init__(self, choose: str) -> None:
        self.choose = choose
        self.values: list[float] = []
        self.seconds: list[float] = []
        self._begin = 0.0
        self._spent = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin, self._spent = time.process_time(), 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._spent -= time.process_time()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._spent += time.process_time()
        if self.choose in trainer.callback_metrics:
            self.values.append(float(trainer.callback_metrics[self.choose]))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.process_time() - self._begin - self._spent)


def fit_and_test(
    config: Mapping[str, Any],
    choose: str,
    tests: Mapping[str, Mapping[str, Any]],
    *,
    mode: str | None = None,
    measure: Callable[[LightningModule, LightningDataModule], Row] | None = None,
) -> Row:
    """Train the task of a config, and test it at the epoch that validation chooses, the first among equals.

    Args:
        config: parsed YAML config.
        choose: validation metric that selects the epoch.
        tests: overrides of the config for each test, such as other negatives; ``{"": {}}`` for the test split without
            overrides.
        mode: ``max`` or ``min``; None for that of the task if it monitors the metric, else by the name of the metric.
        measure: function of the tested task and its data module that returns further numbers.

    Returns:
        ``val``, the best score; ``epoch``, its epoch, from 1; ``curve``, the score after each validation; ``test``, all
        metrics of each test, without the prefix ``test/``; ``steps``; ``seconds_per_epoch``, the median CPU time
        without validation and the first epoch.

    Raises:
        ValueError: if validation does not log the metric.

    Example:
        >>> fit_and_test({}, "val/acc", {"": {}})  # doctest: +SKIP
    """
    curve = _Curve(choose)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        task, data, trainer = build(config, [curve], default_root_dir=folder)
        if mode is None:
            named = "min" if lower_is_better(choose) else "max"
            mode = str(getattr(task, "mode", named)) if choose == getattr(task, "monitor", None) else named
        best = ModelCheckpoint(folder, "best", monitor=choose, mode=mode, save_top_k=1, enable_version_counter=False)
        listening: Any = trainer  # Lightning declares its list of callbacks nowhere
        kept = [callback for callback in listening.callbacks if not isinstance(callback, ModelCheckpoint)]
        listening.callbacks = [*kept, best]
        trainer.fit(task, data)
        if not curve.values or not best.best_model_path:
            known = sorted(name for name in trainer.callback_metrics if name.startswith(("val/", "train/")))
            raise ValueError(f"choose is {choose!r}, which is not logged in validation; there are {', '.join(known)}")
        steps = trainer.global_step
        pick = max if mode == "max" else min
        row: Row = {
            "val": pick(curve.values),
            "epoch": curve.values.index(pick(curve.values)) + 1,
            "curve": curve.values,
            "test": {},
        }
        for name, change in tests.items():
            tested = data
            if change:
                tested = build(overridden(config, change), default_root_dir=folder)[1]
            scores = trainer.test(task, tested, ckpt_path=best.best_model_path, verbose=False, weights_only=True)[0]
            row["test"][name] = {key.removeprefix("test/"): float(value) for key, value in scores.items()}
        if measure is not None:
            row.update(measure(task, data))
    rest = sorted(curve.seconds[1:] or curve.seconds)
    return {**row, "steps": steps, "seconds_per_epoch": rest[len(rest) // 2]}
