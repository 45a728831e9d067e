"""Types of what checkpoint files hold."""

from typing import Any

__all__: list[str] = []

Checkpoint = dict[str, Any]
"""Contents of a checkpoint, as Lightning hands them to hooks. Beside Lightning's own entries, ``state_dict``,
``hyper_parameters`` (the constructor call) and ``callbacks``, the entry ``graphseq`` holds a dictionary with
``version``, ``generators`` (one state for each process), ``left_out``, and of some tasks ``stream`` or
``vocabulary``."""
