"""Types of what checkpoint files hold."""

import os
import pickle
import zipfile
from typing import Any

import torch

from graphseq.core.errors import CheckpointError

__all__: list[str] = []

Checkpoint = dict[str, Any]
"""Contents of a checkpoint, as Lightning hands them to hooks. Beside Lightning's own entries, ``state_dict``,
``hyper_parameters`` (the constructor call) and ``callbacks``, the entry ``graphseq`` holds a dictionary with
``version``, ``generators`` (one state for each process), ``left_out``, and of some tasks ``stream`` or
``vocabulary``."""


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the contents of a checkpoint file, its tensors mapped from the file.

    Args:
        path: checkpoint file.

    Raises:
        CheckpointError: if there is no such file, or it is not a checkpoint.

    Example:
        >>> read_checkpoint("missing.ckpt")
        Traceback (most recent call last):
        graphseq.core.errors.CheckpointError: there is no checkpoint missing.ckpt
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"there is no checkpoint {os.fspath(path)}")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{os.fspath(path)} is not a checkpoint: it is damaged, or not written by torch.save")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{os.fspath(path)} cannot be read as a checkpoint: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{os.fspath(path)} is not a checkpoint: it holds a {type(found).__name__}")
    return found
