"""Tests of what happens on an accelerator; ``GRAPHSEQ_DEVICE=cpu`` runs the same on the processor."""

import contextlib
import os
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents and item.path.name != "test_run.py":
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def device():
    name = os.environ.get("GRAPHSEQ_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here; GRAPHSEQ_DEVICE=cpu runs the same on the processor")
    return torch.device(name)


@pytest.fixture
def without_waiting(device):
    """A context in which reading a tensor of the GPU is an error."""
    if device.type != "cuda":
        pytest.skip("a processor is never waited for; only a GPU tells who waits")

    @contextlib.contextmanager
    def strict():
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return strict
