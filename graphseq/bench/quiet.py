"""Trainer for measurements, without logger, checkpoints, progress bar and messages."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["bare_trainer"]


@contextlib.contextmanager
def bare_trainer(**options: Any) -> Iterator["Trainer"]:
    """Yield a Trainer without logger, checkpoints and progress bar; Lightning's messages are silenced meanwhile.

    Args:
        **options: further arguments of the Trainer, such as ``max_epochs``.

    Example:
        >>> with bare_trainer(max_epochs=1, accelerator="cpu") as trainer:
        ...     trainer.max_epochs
        1
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the number of workers, which nobody asked for
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            from lightning.pytorch import Trainer

            bare: dict[str, Any] = {
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
            }
            yield Trainer(**{**bare, **options})
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
