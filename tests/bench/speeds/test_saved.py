"""Bytes that autograd keeps, counted by hand."""

import torch

from graphseq.bench import saved_bytes


def test_each_storage_counts_once_and_what_is_held_not_at_all():
    layer, x = torch.nn.Linear(3, 4), torch.ones(5, 3)

    def forward():
        y = layer(x).tanh()  # 5 * 4 floats
        return (y[:, :2] * y[:, 2:]).exp().sum()  # two views of them, and 5 * 2 floats

    held = [*layer.parameters(), x]
    assert saved_bytes(forward, held) == 80 + 40
    assert saved_bytes(forward, layer.parameters()) == 80 + 40 + x.nbytes
    frozen = [weight.requires_grad_(False) for weight in layer.parameters()]
    assert saved_bytes(forward, frozen) == 0
    before = torch.ones(5, 4, requires_grad=True)
    # tensors of one size that are kept one after the other have addresses of their own
    assert saved_bytes(lambda: before.exp().exp().exp()) == 3 * 80
