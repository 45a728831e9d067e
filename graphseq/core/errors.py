"""Errors a caller may want to catch; wrong arguments are plain ``ValueError`` and ``TypeError``."""

import re

__all__ = ["CheckpointError", "DataError", "OptionalDependencyError", "UnsupportedStrategyError"]


def constructor_message(error: BaseException) -> str:
    r"""Return the message of a constructor from an exception of jsonargparse, which lists it among others.

    Of a type with alternatives, such as an optional module, jsonargparse lists what each alternative said.

    Args:
        error: an exception of building objects from a config or a checkpoint.

    Example:
        >>> constructor_message(ValueError("not valid\n  - size is 0\n  - Expected a NoneType"))
        'size is 0'
    """
    listed = re.findall(r"^\s*- (?!Expected a )(.+)$", str(error), re.MULTILINE)
    return listed[0] if listed else str(error)


class DataError(ValueError):
    """Data that cannot be used: missing, corrupt, out of range, or not what the reader expects.

    Example:
        >>> raise DataError("labels.csv has 3 rows for 4 graphs; give one row per graph")
        Traceback (most recent call last):
        graphseq.core.errors.DataError: labels.csv has 3 rows for 4 graphs; give one row per graph
    """


class CheckpointError(RuntimeError):
    """A checkpoint that does not fit: written by another task, another version, or another library.

    Example:
        >>> raise CheckpointError("last.ckpt holds graphseq.tasks.Regression, the run is a Classification")
        Traceback (most recent call last):
        graphseq.core.errors.CheckpointError: last.ckpt holds graphseq.tasks.Regression, the run is a Classification
    """


class OptionalDependencyError(ImportError):
    """A package that only some parts need is not installed; the message names the command that installs it.

    Args:
        package: name on the package index.
        extra: extra of graphseq that installs the package; None if there is none.
        purpose: noun phrase that names the part which needs the package, for the message.

    Example:
        >>> print(OptionalDependencyError("rdkit", "reading SMILES", extra="molecules"))
        reading SMILES needs rdkit: pip install 'graphseq[molecules]'
    """

    def __init__(self, package: str, purpose: str, extra: str | None = None) -> None:
        target = f"'graphseq[{extra}]'" if extra else package
        super().__init__(f"{purpose} needs {package}: pip install {target}")


class UnsupportedStrategyError(RuntimeError):
    """A procedure was started on several processes, which cannot give the result of a single process.

    Example:
        >>> raise UnsupportedStrategyError("events must stay in order: use devices=1")
        Traceback (most recent call last):
        graphseq.core.errors.UnsupportedStrategyError: events must stay in order: use devices=1
    """
