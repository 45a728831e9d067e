"""Messages of Lightning, torch and PyG that say nothing about a user's run."""

import logging
import warnings

__all__ = ["HARMLESS_WARNINGS", "quiet_lightning"]

HARMLESS_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's own use of torch
    r".*torch.jit.script. is deprecated",  # PyG's own use of torch
    r".*is smaller than the logging interval",  # losses are logged once an epoch
    r".*.tensorboardX. has been removed",  # Lightning falls back to its CSV log
)
"""Patterns of the warnings that no argument or setting of the user could prevent."""


def quiet_lightning() -> None:
    """Hide Lightning's notices, and warnings that no setting of the user could prevent; for scripts and notebooks.

    Warnings about the run itself are still shown. Lightning sets the level of its log when it is imported, so this
    comes after its import.

    Example:
        >>> quiet_lightning()
        >>> logging.getLogger("lightning.pytorch").isEnabledFor(logging.INFO)
        False
    """
    for pattern in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
