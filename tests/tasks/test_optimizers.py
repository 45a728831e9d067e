"""Optimisers of tasks: parameters that layers exempt from weight decay."""

import functools

import torch
from torch import nn

from graphseq.nn import CRReLU, PolyNorm
from graphseq.tasks import Classification


def task_of(optimizer, *layers):
    return Classification(nn.Sequential(*layers), num_outputs=2, optimizer=optimizer)


def test_coefficients_of_activations_do_not_decay():
    torch.manual_seed(0)
    task = task_of(
        functools.partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5), nn.Linear(3, 2), PolyNorm(), CRReLU()
    )
    optimizer = task.configure_optimizers()
    decayed, free = optimizer.param_groups
    assert {id(p) for p in decayed["params"]} == {id(p) for p in task.model[0].parameters()}
    assert {id(p) for p in free["params"]} == {id(task.model[1].coefficients), id(task.model[2].epsilon)}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.5, 0.0)
    assert {key: free[key] for key in ("lr", "betas", "eps")} == {key: decayed[key] for key in ("lr", "betas", "eps")}
    before = [p.detach().clone() for p in free["params"]]
    weight = task.model[0].weight.detach().clone()
    for parameter in task.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(free["params"], before, strict=True))
    assert torch.allclose(task.model[0].weight, 0.95 * weight)


def test_groups_stay_as_they_are_without_decay_or_exempt_layers():
    for task in (
        task_of(functools.partial(torch.optim.Adam, lr=0.1), nn.Linear(3, 2), PolyNorm()),
        task_of(functools.partial(torch.optim.AdamW, lr=0.1), nn.Linear(3, 2)),
    ):
        assert len(task.configure_optimizers().param_groups) == 1
    (group,) = task_of(functools.partial(torch.optim.AdamW, lr=0.1), nn.Linear(3, 2, False).requires_grad_(False),
                       CRReLU()).configure_optimizers().param_groups  # fmt: skip
    assert group["weight_decay"] == 0.0
