import io
import random

import numpy as np
import torch

from graphseq.core import capture_generators, restore_generators


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)], random.gauss(0, 1)


def test_restores_every_generator_exactly():
    random.gauss(0, 1)  # leaves a cached second value in the python generator
    np.random.randn()
    state = capture_generators()
    first = draw()
    draw()
    restore_generators(state)
    assert draw() == first


def test_state_survives_a_checkpoint_opened_safely():
    state = capture_generators()
    first = draw()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    restore_generators(torch.load(buffer, weights_only=True))
    assert draw() == first
