"""Hypernetworks of tasks: chunks, dependence between layers, growth, and the regulariser."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from graphseq.models import MLP
from graphseq.nn import ChunkedHyperNetwork, OutputRegularizer, RNNHyperNetwork

SIZES = {"num_tasks": 3, "task_size": 3, "layer_size": 2, "chunk_size": 7}


def network():
    return MLP(3, 2, 4)  # layers of 16 and 10 weights: 3 and 2 chunks of 7


def recurrent(cell="lstm"):
    return RNNHyperNetwork(network(), hidden_size=5, cell=cell, **SIZES).double()


def test_recurrent_weights_are_those_of_a_loop_over_chunks():
    hyper = recurrent()
    rnn, state = hyper.rnn, (torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64))
    chunks = []
    for embedding in hyper.chunk_embeddings:
        x = torch.cat([hyper.task_embeddings[1], embedding])
        gates = rnn.weight_ih_l0 @ x + rnn.bias_ih_l0 + rnn.weight_hh_l0 @ state[0] + rnn.bias_hh_l0
        i, f, g, o = gates.view(4, 5)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        state = (o.sigmoid() * c.tanh(), c)
        chunks.append(hyper.output.weight @ state[0] + hyper.output.bias)
    first, second = torch.cat(chunks[:3])[:16], torch.cat(chunks[3:])[:10]
    parts = [*first.split([12, 4]), *second.split([8, 2])]
    parts = [offset + scale * part for offset, scale, part in zip(hyper.offset, hyper.scale, parts, strict=True)]
    weights = list(hyper.weights(1).values())
    for found, part in zip(weights, parts, strict=True):
        torch.testing.assert_close(found.flatten(), part)
    parameters = [each for each in hyper.parameters() if not any(each is hyper.task_embeddings[t] for t in (0, 2))]
    ours = torch.autograd.grad(sum(each.pow(3).sum() for each in weights), parameters, retain_graph=True)
    theirs = torch.autograd.grad(sum(each.pow(3).sum() for each in parts), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    x = torch.randn(4, 3, dtype=torch.float64)
    w1, b1, w2, b2 = weights
    torch.testing.assert_close(hyper(x, 1), torch.relu(x @ w1.T + b1) @ w2.T + b2)


def jacobian(hyper, layer, chunk):
    """How the weights of a layer depend on the embedding of a chunk."""
    weights = list(hyper.weights(0).values())[2 * layer]
    return torch.autograd.grad(weights.square().sum(), hyper.chunk_embeddings)[0][chunk].abs().max()


def test_later_layers_depend_on_earlier_ones_only_if_recurrent():
    hyper, chunked = recurrent(), ChunkedHyperNetwork(network(), hidden_sizes=[5], **SIZES).double()
    assert jacobian(hyper, layer=1, chunk=0) > 1e-6
    assert jacobian(hyper, layer=0, chunk=4) == 0
    assert jacobian(chunked, layer=1, chunk=0) == jacobian(chunked, layer=0, chunk=4) == 0
    assert jacobian(chunked, layer=1, chunk=4) > 1e-6


def test_begins_with_the_spread_of_the_network():
    plain = MLP(64, 10, 64, norm="layer")
    spread = {name: value.std() for name, value in plain.named_parameters()}
    hyper = ChunkedHyperNetwork(plain, num_tasks=4, chunk_size=100)
    weights = hyper.weights(2)
    torch.testing.assert_close(weights["hidden.0.0.weight"].std(), spread["hidden.0.0.weight"], rtol=0.3, atol=0)
    assert 0.7 < float(weights["hidden.0.1.weight"].detach().mean()) < 1.3  # a norm begins near 1


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_growth_changes_no_weight_and_adds_capacity(cell):
    hyper = recurrent(cell)
    before = torch.stack([torch.cat([w.flatten() for w in hyper.weights(t).values()]) for t in range(3)]).detach()
    count = sum(each.numel() for each in hyper.parameters())
    grown = hyper.grow(4)
    after = hyper.generate(torch.stack(list(hyper.task_embeddings)))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    assert hyper.hidden_size == 9
    assert sum(each.numel() for each in hyper.parameters()) > count
    after.square().sum().backward()
    assert hyper.output.weight.grad[:, 5:].abs().max() > 0  # the new units are used from the next step on
    for each in grown:
        assert each.spread(each.old).shape == each.new.shape
        assert torch.equal(
            each.spread(each.old), torch.where(each.spread(torch.ones_like(each.old)) > 0, each.new, 0.0)
        )
    hyper.add_task()
    again = recurrent(cell)
    again.load_state_dict(hyper.state_dict())
    assert (again.hidden_size, again.num_tasks) == (9, 4)
    x = torch.randn(2, 3, dtype=torch.float64)
    assert torch.equal(again(x, 3), hyper(x, 3))
    assert torch.equal(copy.deepcopy(hyper)(x, 0), hyper(x, 0))


def test_regularizer_is_the_loop_and_pushes_back():
    generated, noted = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5)
    importance = torch.rand(3, 5)
    total = 0.0
    for t in range(3):
        for p in range(5):
            total = total + importance[t, p] * (generated[t, p] - noted[t, p]) ** 2
    torch.testing.assert_close(OutputRegularizer(0.3)(generated, noted, importance), 0.3 * total / 3)
    value = OutputRegularizer(0.3)(generated, noted)
    torch.testing.assert_close(value, 0.3 * (generated - noted).square().sum() / 3)
    (gradient,) = torch.autograd.grad(value, generated)
    assert (gradient * (generated - noted) > 0).all()
    assert OutputRegularizer(0.3)(noted, noted) == 0
    assert OutputRegularizer(0.3)(noted[:0], noted[:0]) == 0
    assert sorted(OutputRegularizer(num_sampled=5).choose(3)) == [0, 1, 2]
    assert len(set(OutputRegularizer(num_sampled=2).choose(9))) == 2


def test_bad_arguments():
    for options, named in (
        ({"num_tasks": 0}, "num_tasks"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"cell": "rnn"}, "cell"),
    ):
        with pytest.raises(ValueError, match=named):
            RNNHyperNetwork(network(), **{**SIZES, **options})
    with pytest.raises(ValueError, match="hidden_sizes"):
        ChunkedHyperNetwork(network(), hidden_sizes=[0], **SIZES)
    with pytest.raises(ValueError, match="task is 3"):
        recurrent()(torch.ones(1, 3), 3)
    with pytest.raises(ValueError, match="num_units"):
        recurrent().grow(0)
    for options, named in (({"beta": -1.0}, "beta"), ({"num_sampled": 0}, "num_sampled")):
        with pytest.raises(ValueError, match=named):
            OutputRegularizer(**options)
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        OutputRegularizer()(torch.ones(2, 5), torch.ones(3, 5))
    assert isinstance(recurrent().rnn, nn.LSTM)


def test_the_config_has_fewer_parameters_than_it_generates():
    config = yaml.safe_load((Path(__file__).parents[3] / "configs/continual/rnn_hypernet_digits.yaml").read_text())
    options = config["model"]["init_args"]["model"]["init_args"]
    generated = MLP(64, 10, **options.pop("network")["init_args"])
    hyper = RNNHyperNetwork(generated, config["data"]["init_args"]["num_tasks"], **options)
    assert sum(each.numel() for each in hyper.parameters()) < hyper.num_weights == 26122
    assert config["trainer"]["max_epochs"] == 5 * config["data"]["init_args"]["epochs_per_task"]
