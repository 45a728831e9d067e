"""The command line: ``graphseq init | fit | validate | test | predict | generate | list | show | plot | bench``."""

import difflib
import os
import sys
from collections.abc import Sequence

from graphseq import __version__

__all__ = ["main"]

_HELP = """usage: graphseq <command> [options]

Graph, temporal-graph and sequence modelling on PyTorch Geometric and Lightning.

start:
  init        a config and a script to start from: graphseq init [NAME...]

train and use, all with --config FILE_OR_NAME (several: later ones win) and --help:
  fit         train a task on data
  validate    metrics of a checkpoint on the validation split (--ckpt_path FILE)
  test        metrics of a checkpoint on the test split
  predict     outputs of a checkpoint, written to predictions.csv in the folder of its run; of the test split, or by
              --split train|val|test|all; new data may lack targets and are predicted whole
  generate    text from a checkpoint of a language model: graphseq generate --ckpt_path last --prompt TEXT

look:
  list        names with a line each: graphseq list [tasks|nn|models|data|methods|configs|examples|...]
  show        the config with all defaults, parameter counts, data sizes: graphseq show CONFIG
  plot        curves of one or more runs: graphseq plot RUN... or --all

measure:
  bench       named experiments: graphseq bench --list

options:
  --version   version of graphseq
  --help      this text
  --verbose   whole messages and tracebacks of what fit, validate, test, predict and show refuse

example:
  graphseq fit --config graph/gine_digits
"""

_TRAINING = ("fit", "validate", "test", "predict")
# commands that build what a config or checkpoint names, which may be a class of a file in the working directory
_BUILDING = (*_TRAINING, "show", "generate", "bench")
_COMMANDS = ("init", *_TRAINING, "generate", "list", "show", "plot", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 wrong usage.

    Args:
        arguments: words of the command line after ``graphseq``; None for those of the process.

    Example:
        >>> main(["--version"])
        graphseq 0.1.0
        0
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (given[0], given[1:]) if given else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if command in ("-V", "--version"):
        print(f"graphseq {__version__}")
        return 0
    try:
        return _run(command, rest)
    except BrokenPipeError:  # `graphseq list | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(command: str, rest: Sequence[str]) -> int:
    # each command imports what it needs: only training loads Lightning
    if command in _BUILDING:
        from graphseq.cli.shipped import UnknownConfigError, with_config_files

        if "" not in sys.path:  # the working directory, last: a file there never hides an installed package
            sys.path.append("")
        try:
            rest = with_config_files(rest)
        except UnknownConfigError as error:
            print(f"graphseq {command}: {error}", file=sys.stderr)
            return 2
    if command in _TRAINING:
        from graphseq.cli.training import train

        return train([command, *rest])
    if command == "generate":
        from graphseq.cli.generate import generate

        return generate(rest)
    if command == "show":
        from graphseq.cli.show import show

        return show(rest)
    if command == "init":
        from graphseq.cli.shipped import init

        return init(rest)
    if command == "list":
        from graphseq.cli.listing import main as listing

        return listing(rest)
    if command == "plot":
        from graphseq.cli.plotting import main as plotting

        return plotting(rest)
    if command == "bench":
        from graphseq.bench.command import main as bench

        return bench(rest)
    near = difflib.get_close_matches(command, _COMMANDS, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    print(f"graphseq: there is no command {command!r}{meant}\ncommands: {', '.join(_COMMANDS)}", file=sys.stderr)
    return 2
