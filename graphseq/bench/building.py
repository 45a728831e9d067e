"""Builds task, data module and trainer from a config, for the command line and for experiments."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from graphseq.core.errors import CheckpointError, DataError, OptionalDependencyError, constructor_message
from graphseq.core.spec import record_foreign_modules
from graphseq.tasks.base import Task

__all__ = ["ConfigError", "ConfiguredCLI", "touch_rooms"]

# size of the data module -> argument of the network; below, sizes that are arguments of the task. A link is left out
# where there is no such argument, or the data module has no such size.
_LINKS = (
    ("num_features", "in_channels"),
    ("input_size", "in_features"),
    ("image_shape", "in_shape"),
    ("num_outputs", "out_channels"),
    ("num_outputs", "out_features"),
    ("num_edge_features", "edge_channels"),
    ("degree_histogram", "degree_histogram"),
    ("node_categories", "node_categories"),
    ("edge_categories", "edge_categories"),
    ("num_nodes", "num_nodes"),
    ("num_tasks", "num_tasks"),
    ("vocab_size", "vocab_size"),
    ("num_symbols", "num_symbols"),
    ("time_statistics", "time_statistics"),
    ("mean_gap", "mean_gap"),
    ("num_series", "num_series"),
    ("num_variables", "num_variables"),
    ("num_targets", "num_targets"),
    ("num_known", "num_known"),
    ("target_positions", "targets"),
    ("window", "window"),
    ("horizon", "horizon"),
    ("season", "season"),
    ("field_statistics", "field_statistics"),
)
_TASK_LINKS = ("num_outputs", "num_tasks", "node_categories", "edge_categories")
_ROOMS_WITH_CLASSES = ("tasks", "data", "models", "nn", "callbacks")


def touch_rooms() -> None:
    """Import every public class that a config may name, so that short names resolve on the command line.

    Example:
        >>> touch_rooms()
    """
    for room in _ROOMS_WITH_CLASSES:
        module = importlib.import_module(f"graphseq.{room}")
        for name in module.__all__:
            getattr(module, name)


class ConfigError(ValueError):
    """A config that cannot be built.

    Example:
        >>> raise ConfigError("batch_size is 0")
        Traceback (most recent call last):
        graphseq.bench.building.ConfigError: batch_size is 0
    """


class ConfiguredCLI(LightningCLI):
    """Builds a task, a data module and a trainer from a config, and passes the data's sizes on to the network.

    Args:
        arguments: words of the command line, or a whole config as plain data.
        run: whether to run the subcommand that the arguments begin with, or only to build everything.
        options: further arguments of ``LightningCLI``.

    Example:
        >>> config = {
        ...     "model": {"class_path": "graphseq.tasks.Classification", "init_args": {"model": {
        ...         "class_path": "graphseq.models.MLP"}}},
        ...     "data": {"class_path": "graphseq.data.TabularDataModule", "init_args": {"path": "table.csv"}},
        ... }
        >>> ConfiguredCLI(config, run=False).datamodule  # doctest: +SKIP
    """

    def __init__(self, arguments: Sequence[str] | Mapping[str, Any], run: bool = True, **options: Any) -> None:
        record_foreign_modules()
        touch_rooms()
        options = {"seed_everything_default": 0, **options}
        super().__init__(
            Task,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=Namespace(**arguments) if isinstance(arguments, Mapping) else list(arguments),
            run=run,
            **options,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link sizes of the data module (classes, features, …) to arguments of the network and the task."""
        for source, target in _LINKS:
            for network in ("model.init_args.model", "model.init_args.model.init_args.network"):  # or within a wrapper
                self.link_size(parser, source, f"{network}.init_args.{target}")
        for size in _TASK_LINKS:
            self.link_size(parser, size, f"model.init_args.{size}")

    def link_size(self, parser: LightningArgumentParser, source: str, target: str) -> None:
        """Link one size; a data module without it leaves the argument as it is.

        Args:
            parser: parser of a command.
            source: attribute of the data module.
            target: key of the argument.
        """

        def size(data: object) -> Any:
            config = self.config[self.subcommand] if self.subcommand else self.config
            # a size that no argument takes is not read, for some take a pass over the data
            return self.size_of(data, source, target, config.get(target)) if target in config else None

        parser.link_arguments("data", target, compute_fn=size, apply_on="instantiate")

    def size_of(self, data: object, source: str, target: str, given: Any) -> Any:
        """Return the value of an argument that is linked to a size of the data.

        Args:
            data: data module.
            source: attribute of the data module.
            target: key of the argument.
            given: value of the argument in the config, kept where the data module has no such size.
        """
        return getattr(data, source, given)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse without LightningCLI's warning that ``sys.argv`` is not empty."""
        self.config = parser.parse_object(args.as_dict()) if isinstance(args, Namespace) else parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: LightningCLI would let the checkpoint override config and command line, silently."""

    def instantiate_classes(self) -> None:
        """Build task, data module and trainer; an exception of a constructor becomes a :class:`ConfigError`."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            cause = _raised_by_constructor(error)
            if isinstance(cause, CheckpointError | DataError | OptionalDependencyError):
                raise cause from None
            raise ConfigError(constructor_message(cause)) from error


def _raised_by_constructor(error: BaseException) -> BaseException:
    """Return what a constructor raised, which jsonargparse wraps several times; not what the constructor had caught."""
    while (below := error.__cause__ or error.__context__) is not None and _is_of_jsonargparse(error):
        error = below
    return error


def _is_of_jsonargparse(error: BaseException) -> bool:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is None or str(last.tb_frame.f_globals.get("__name__")).partition(".")[0] == "jsonargparse"
