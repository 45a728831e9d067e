"""Capture and restore the state of every global random generator, as plain data and tensors."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["capture_generators", "restore_generators"]

GeneratorStates = dict[str, Any]
"""States of the generators ``torch``, ``cuda``, ``numpy`` and ``python``: tensors and plain data."""


def capture_generators() -> GeneratorStates:
    """Return the state of the torch, CUDA, numpy and python generators.

    Everything in it is a tensor or plain data, so a checkpoint that holds it opens with ``weights_only=True``.

    Returns:
        A dictionary with keys ``torch``, ``cuda`` (one entry a device, empty without CUDA or before its first
        use), ``numpy`` and ``python``.

    Example:
        >>> state = capture_generators()
        >>> first = torch.rand(3)
        >>> restore_generators(state)
        >>> torch.equal(first, torch.rand(3))
        True
    """
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - the global generator is what is saved
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        # reading an unused CUDA's state would initialise it in every process
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "python": {"version": version, "internal": list(internal), "gauss": gauss},
    }


def restore_generators(state: GeneratorStates) -> None:
    """Restore the state of every generator.

    Args:
        state: state that :func:`capture_generators` returned, possibly in another process. States of CUDA devices
            that do not exist in this process are ignored.

    Example:
        >>> restore_generators(capture_generators())
    """
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available():
        for device, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state.cpu(), device)
    saved = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        (
            saved["name"],
            saved["keys"].cpu().numpy().astype(np.uint32),
            saved["position"],
            saved["has_gauss"],
            saved["cached"],
        )
    )
    python = state["python"]
    random.setstate((python["version"], tuple(python["internal"]), python["gauss"]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which every generator starts from a seed; their states are restored afterwards.

    Args:
        seed: seed of the torch, numpy and python generators.

    Example:
        >>> with seeded(3):
        ...     first = torch.rand(2)
        >>> with seeded(3):
        ...     torch.equal(first, torch.rand(2))
        True
    """
    states = capture_generators()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what runs inside draws from the global generator
    torch.manual_seed(seed)
    try:
        yield
    finally:
        restore_generators(states)
