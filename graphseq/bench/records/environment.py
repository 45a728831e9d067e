"""The machine and the versions a record was measured with."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import graphseq
from graphseq.bench.experiment import Row

__all__ = ["environment"]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def environment() -> Row:
    """Return versions, processor, threads, GPU (None without one) and date, as plain data.

    ``cores`` are those this process may use; ``threads`` is torch's setting at the time of the call.

    Example:
        >>> sorted(environment())  # doctest: +NORMALIZE_WHITESPACE
        ['cores', 'cpu', 'date', 'gpu', 'graphseq', 'lightning', 'python', 'threads', 'torch', 'torch_geometric']
    """
    import torch

    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "graphseq": graphseq.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": _version("torch-geometric"),
        "lightning": _version("lightning"),
        "cpu": _cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
