"""``graphseq show CONFIG``: resolved config, network and data of a config, without training."""

import sys
from collections.abc import Sequence

import yaml
from rich.console import Console
from torch import nn

from graphseq.bench.records.table import print_table
from graphseq.cli.refusals import reported
from graphseq.cli.shipped import UnknownConfigError, find_config
from graphseq.cli.training import GraphseqCLI

__all__ = ["show"]

_SIZES = ("num_features", "num_outputs", "num_edge_features", "input_size", "num_nodes", "vocab_size",
          "num_series", "num_variables", "num_targets", "window", "horizon")  # fmt: skip


def parameter_rows(model: nn.Module) -> list[tuple[str, str, int]]:
    """Return name, class and number of parameters of each part of a network.

    Args:
        model: any network.

    Example:
        >>> parameter_rows(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
        [('0', 'Linear', 9)]
    """
    rows = []
    for name, child in model.named_children():
        count = sum(parameter.numel() for parameter in child.parameters())
        if count:
            rows.append((name, type(child).__name__, count))
    return rows


def show(arguments: Sequence[str]) -> int:
    """Print the resolved config, the parameters of the network and the sizes of the data.

    Args:
        arguments: config files or names of configs of the package, followed by any options of ``graphseq fit``.

    Example:
        >>> show([])
        2
    """
    files = [argument for argument in arguments if not argument.startswith("-")]
    if not files or "--help" in arguments or "-h" in arguments:
        print("usage: graphseq show CONFIG [CONFIG ...] [--key value]", file=sys.stderr)
        return 0 if files or "--help" in arguments or "-h" in arguments else 2
    given: list[str] = []
    for place, argument in enumerate(arguments):
        before = arguments[place - 1] if place else ""
        is_value = before.startswith("-") and "=" not in before and before != "--verbose"
        if argument.startswith("-") or is_value:
            given.append(argument)
            continue
        try:
            given += ["--config", find_config(argument)]
        except UnknownConfigError as error:
            print(f"graphseq show: {error}", file=sys.stderr)
            return 2
    return reported("show", given, lambda words: _print(GraphseqCLI(words, run=False)))


def _print(cli: GraphseqCLI) -> None:
    config = yaml.safe_load(cli.parser.dump(cli.config, skip_unset=True, skip_link_targets=False))
    config.pop("config", None)
    if cli.model._record is not None:  # with the sizes that came from the data
        config["model"] = cli.model._record
    console = Console()
    console.print(yaml.safe_dump(config, sort_keys=False, width=console.width), highlight=False, markup=False)

    network, data = cli.model.model, cli.datamodule
    parts = [{"part": name, "class": kind, "parameters": count} for name, kind, count in parameter_rows(network)]
    total = sum(parameter.numel() for parameter in network.parameters())
    parts.append({"part": "all", "class": "", "parameters": total})
    print_table(parts, console, title=f"{type(cli.model).__name__} of {type(network).__name__}")
    console.print()
    sizes = {f"{name} samples": len(index) for name, index in getattr(data, "splits", {}).items()}
    sizes |= {name: getattr(data, name) for name in _SIZES if hasattr(type(data), name)}
    store = getattr(data, "store", None)
    if store is not None:
        sizes["memory (MB)"] = round(store.nbytes / 2**20, 1)
    rows = [{"size": name, "value": value} for name, value in sizes.items()]
    print_table(rows, console, title=type(data).__name__)
