"""Classifiers beside frozen networks: nothing of the network moves or is kept, checkpoints hold the rest."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import graphseq
from graphseq.bench import saved_bytes
from graphseq.models import (
    GraphEncoder,
    TransformerClassifier,
    TransformerLanguageModel,
    TunedGraphClassifier,
    TunedSequenceClassifier,
)
from graphseq.nn import (
    BlockStack,
    CausalAttention,
    EdgeInteraction,
    FeedForward,
    Frozen,
    LadderSide,
    LastState,
    LoRA,
    Pretrained,
    SelfAttention,
    SequenceBlock,
    UniPT,
)
from graphseq.tasks import Classification
from tests.reliability.runs import trainer


def language_model(dim=8, blocks=2):
    block = SequenceBlock(CausalAttention(dim, num_heads=2), FeedForward(dim))
    return TransformerLanguageModel(9, BlockStack([block], repeats=blocks))


def graph():
    batch = torch.tensor([0, 0, 0, 1, 1])
    return {"x": torch.randn(5, 3), "edge_index": torch.tensor([[0, 1, 2, 3], [1, 2, 0, 4]]), "batch": batch}


def test_graph_encoders_tell_their_hidden_states():
    encoder = GraphEncoder(3, 4, num_layers=2, jumping_knowledge="cat").eval()
    fields = graph()
    hidden = encoder.hidden_states(**fields)
    assert torch.equal(hidden[0], fields["x"])
    assert torch.equal(torch.cat(hidden[1:], 1), encoder.encode_nodes(**fields))


def test_frozen_means_frozen():
    """Steps in training mode move neither weights nor statistics of the encoder, and give it no gradient."""
    encoder = GraphEncoder(3, 4, num_layers=2, dropout=0.5)
    network = TunedGraphClassifier(Frozen(encoder), UniPT([3, 4, 4], interaction=EdgeInteraction()), 2).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        network(**graph()).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(p.grad is not None for p in network.side.parameters())
    assert not any(state.requires_grad for state in network.backbone.hidden_states(**graph()))


def test_nothing_is_kept_of_a_frozen_network():
    """The loss keeps what the side network alone keeps on the same hidden states."""
    ids, network = torch.randint(9, (2, 6)), TunedSequenceClassifier(Frozen(language_model()), UniPT([8] * 3), 2)
    hidden = [state.detach() for state in network.backbone.hidden_states(ids)]
    whole = saved_bytes(lambda: network(ids), network.parameters())
    alone = TunedSequenceClassifier(Given(hidden), network.side, 2)
    assert whole == saved_bytes(lambda: alone(ids), alone.parameters())


class Given(nn.Module):
    """Hidden states that were computed before."""

    def __init__(self, states):
        super().__init__()
        self.states = states

    def hidden_states(self, x):
        return self.states


def test_bytes_beside_a_network_of_eight_blocks():
    """With half as many steps as features, UniPT keeps at most 0.5 of LoRA's bytes and 0.4 of fine-tuning's."""
    ids, found, last = torch.randint(9, (1, 16)), {}, LastState(32)
    for name, backbone, side in (
        ("fine-tuning", language_model(32, blocks=8), last),
        ("unipt", Frozen(language_model(32, blocks=8)), UniPT([32] * 9)),
        ("ladder", Frozen(language_model(32, blocks=8)), LadderSide([32] * 9)),
        ("lora", LoRA(Frozen(language_model(32, blocks=8)), rank=2), last),
    ):
        network = TunedSequenceClassifier(backbone, side, 3)
        found[name] = saved_bytes(lambda network=network: network(ids), network.parameters())
    assert found["unipt"] <= 0.5 * found["lora"]
    assert found["unipt"] <= 0.4 * found["fine-tuning"]
    assert found["unipt"] <= found["ladder"]


def test_padding_is_not_read_by_any_side():
    x, lengths = torch.randn(2, 6, 3), torch.tensor([6, 4])
    encoder = TransformerClassifier(2, BlockStack([SequenceBlock(SelfAttention(8))], repeats=2), in_channels=3)
    ids = torch.randint(9, (2, 6))
    for side in (UniPT([8] * 3), LadderSide([8] * 3), LastState(8)):
        for backbone, values, short in ((encoder, x, x[1:, :4]), (language_model(), ids, ids[1:, :4])):
            network = TunedSequenceClassifier(Frozen(backbone), side, 2)
            torch.testing.assert_close(network(values, lengths)[1:], network(short))


def test_probe_of_a_graph_encoder_is_a_head_on_its_vectors():
    encoder, fields = GraphEncoder(3, 4).eval(), graph()
    network = TunedGraphClassifier(Frozen(encoder), LastState(4), 2)
    torch.testing.assert_close(network(**fields), network.head(encoder(**fields)))


@pytest.fixture
def pretrained(tmp_path):
    """Function that reads the same network from a file, as often as it is called."""
    torch.manual_seed(0)
    torch.save(language_model().state_dict(), tmp_path / "pretrained.pt")
    return lambda: Pretrained(tmp_path / "pretrained.pt", part="", module=language_model())


def trained_names(network, prefix=""):
    return {f"{prefix}{name}" for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_checkpoints_hold_what_is_trained(pretrained, tmp_path):
    ids = torch.randint(9, (16, 5))
    network = TunedSequenceClassifier(pretrained(), UniPT([8] * 3), 2)
    task = Classification(network, 2, optimizer=functools.partial(torch.optim.Adam, lr=0.05))
    run = trainer(max_epochs=1)
    run.fit(task, DataLoader(list(zip(ids, ids[:, 0] % 2, strict=True)), batch_size=8))
    run.save_checkpoint(tmp_path / "tuned.ckpt")
    saved = torch.load(tmp_path / "tuned.ckpt", weights_only=True)["state_dict"]
    assert {name for name in saved if not name.endswith("_extra_state")} == trained_names(network, "model.")
    loaded = graphseq.load(tmp_path / "tuned.ckpt")
    assert torch.equal(loaded.model.eval()(ids), network.eval()(ids))


def test_states_of_lora_hold_its_changes_alone(pretrained):
    ids, network = torch.randint(9, (3, 5)), TunedSequenceClassifier(LoRA(pretrained()), LastState(8), 2)
    for up in network.backbone.up.values():
        nn.init.normal_(up)
    state = network.state_dict()
    assert {name for name in state if not name.endswith("_extra_state")} == trained_names(network)
    other = TunedSequenceClassifier(LoRA(pretrained()), LastState(8), 2)
    other.load_state_dict(state)
    assert torch.equal(other(ids), network(ids))


def test_refuses_what_does_not_fit():
    encoder = GraphEncoder(3, 4, num_layers=1)
    with pytest.raises(TypeError, match="backbone is a Linear"):
        TunedGraphClassifier(nn.Linear(3, 4), LastState(4), 2)
    with pytest.raises(TypeError, match="side is a ReLU"):
        TunedGraphClassifier(Frozen(encoder), nn.ReLU(), 2)
    with pytest.raises(ValueError, match="out_channels is 0"):
        TunedGraphClassifier(Frozen(encoder), LastState(4), 0)
    with pytest.raises(ValueError, match="pool is 'max'"):
        TunedSequenceClassifier(Frozen(language_model()), LastState(8), 2, pool="max")
    moving = GraphEncoder(3, 4, num_layers=1).requires_grad_(False)
    with pytest.raises(ValueError, match=r"batch norm convs\.0"):
        TunedGraphClassifier(moving, LastState(4), 2)
    with pytest.raises(ValueError, match="last hidden state has the width 4"):
        TunedGraphClassifier(Frozen(encoder), LastState(5), 2)(**graph())
