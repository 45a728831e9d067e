"""Executor of chains: by hand, against the network's own forward, with and without kept prefixes."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN, DeepGCNLayer, GraphConv, JumpingKnowledge

from graphseq.analysis import ChainExecutor, LayerPath, PathTreeSearch, RandomPathSearch, margin_reward
from graphseq.models import TransformerClassifier, TransformerEncoderDecoder, TransformerLanguageModel
from graphseq.nn import (
    BlockStack,
    CausalAttention,
    CrossAttention,
    CrossBlock,
    LearnedPositions,
    NoPositions,
    PostNorm,
    SelfAttention,
    SequenceBlock,
)


class ResidualGraphNetwork(nn.Module):
    """Four residual graph convolutions with batch norms; each may be of another width, or all outputs may be read."""

    def __init__(self, widths=(8, 8, 8, 8), all_outputs=False):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        sizes = zip((8, *widths[:-1]), widths, strict=True)
        self.layers = nn.ModuleList(
            DeepGCNLayer(GraphConv(a, b), nn.BatchNorm1d(b), nn.ReLU(), block="res+" if a == b else "plain")
            for a, b in sizes
        )
        self.jump = JumpingKnowledge("max") if all_outputs else None
        self.head = nn.Linear(widths[-1], 5)

    def forward(self, x, edge_index):
        h, seen = self.embed(x), []
        for layer in self.layers:
            h = layer(h, edge_index)
            seen.append(h)
        return self.head(h if self.jump is None else self.jump(seen))


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    blocks = BlockStack([SequenceBlock(SelfAttention(8, 2))], 4, positions=LearnedPositions(8, 6))
    return TransformerClassifier(5, blocks, vocab_size=7, dropout=0.5).double().eval()


@pytest.fixture
def ids():
    return torch.tensor([[1, 2, 3, 4, 5], [6, 5, 4, 0, 0]]), torch.tensor([5, 3])


def test_original_path_is_the_network_bit_for_bit(classifier, ids):
    assert torch.equal(ChainExecutor(classifier)(range(4), *ids), classifier(*ids))
    language = TransformerLanguageModel(7, BlockStack([SequenceBlock(CausalAttention(8, 2))], 3)).eval()
    prefix = torch.tensor([3, 1])
    assert torch.equal(ChainExecutor(language)([0, 1, 2], ids[0], prefix=prefix), language(ids[0], prefix))


def test_path_is_the_composition_of_its_layers(classifier, ids):
    x, lengths = ids
    stack = classifier.layers
    h, _ = stack.positions(classifier.input(x), None, lengths)
    for number in (1, 2, 2, 3):
        h, _ = stack.blocks[number](h, None, lengths)
    h = stack.norm(h).masked_fill(torch.arange(5)[None, :, None] >= lengths[:, None, None], 0)
    y = classifier.head(h.sum(1) / lengths[:, None])
    torch.testing.assert_close(ChainExecutor(classifier)([1, 2, 2, 3], x, lengths), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cache_bytes", [0, 1000, 2**20])
def test_kept_prefixes_change_no_number(classifier, ids, cache_bytes):
    run = ChainExecutor(classifier, cache_bytes=cache_bytes).prepare(*ids)
    assert run.layer_calls == 4  # of the check of the original path
    paths = [[0, 1, 2, 3], [0, 1, 3], [0, 1, 2, 2, 3], [3], [0, 1, 3, 3], [0, 1]]
    for path in paths:
        fresh = ChainExecutor(classifier, "layers.blocks", cache_bytes=0)
        torch.testing.assert_close(run(path), fresh(path, *ids), rtol=1e-12, atol=1e-12)
    if cache_bytes == 0:
        assert run.layer_calls == 4 + sum(map(len, paths))
    elif cache_bytes == 2**20:  # 3 after 0 1; 2 3 after 0 1 2; 3; 3 after 0 1 3
        assert run.layer_calls == 4 + 1 + 2 + 1 + 1
    else:  # 1000 bytes hold one hidden state of 2 * 5 * 8 * 8
        assert 9 < run.layer_calls < 4 + sum(map(len, paths))
    assert run._bytes == sum(h[0].nbytes for h in run._kept.values()) <= cache_bytes


def test_nothing_of_the_network_moves(classifier, ids):
    before, modules = copy.deepcopy(classifier.state_dict()), list(classifier.named_modules())
    random_state = torch.get_rng_state()
    output = ChainExecutor(classifier)([2, 0, 0], *ids)
    with pytest.raises(ValueError, match="path is 0,9"):
        ChainExecutor(classifier)([0, 9], *ids)
    assert not output.requires_grad
    assert list(classifier.named_modules()) == modules
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, before[name])


def test_residual_graph_network():
    torch.manual_seed(0)
    network = ResidualGraphNetwork().double().eval()
    x, edge_index = torch.randn(6, 3).double(), torch.randint(6, (2, 12))
    executor = ChainExecutor(network, "layers")
    assert torch.equal(executor(executor.original, x, edge_index), network(x, edge_index))
    h = network.embed(x)
    for number in (0, 2, 2):
        h = network.layers[number](h, edge_index)
    torch.testing.assert_close(executor([0, 2, 2], x, edge_index), network.head(h), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [PathTreeSearch, RandomPathSearch])
def test_a_search_leaves_statistics_and_random_numbers_alone(kind):
    torch.manual_seed(0)
    network = ResidualGraphNetwork().eval()
    before = copy.deepcopy(network.state_dict())
    assert any("running_mean" in name for name in before)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    run = ChainExecutor(network, "layers").prepare(torch.randn(6, 3), torch.randint(6, (2, 12)))
    drawn = torch.get_rng_state()
    output = run(range(4))
    result = kind(budget=20, seed=1).search(lambda path: margin_reward(run(path)), 4)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert len(result.rewards) == 20
    assert torch.equal(run(range(4)), output)
    assert run.layer_calls < sum(map(len, result.rewards))  # prefixes are shared


def test_sequential_layers_and_post_norm():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Tanh()).eval()
    x = torch.randn(3, 4)
    torch.testing.assert_close(ChainExecutor(plain, "0")([1, 1], x), plain[0][1](plain[0][1](x)).tanh())
    stack = BlockStack([SequenceBlock(CausalAttention(8, 2), residual=PostNorm(8))], 2).eval()
    h = torch.randn(1, 3, 8)
    y, state = ChainExecutor(stack)([1], h)
    torch.testing.assert_close(y, stack.norm(stack.blocks[1](h)[0]))
    assert state == [()]  # which no layer takes for the beginning of a sequence, as it does None
    with pytest.raises(ValueError, match="state is given"):
        ChainExecutor(stack)([1], h, state)


def test_repeated_layers_with_keys_and_values_are_refused():
    class Continued(nn.Module):
        def __init__(self, language, state):
            super().__init__()
            self.language, self.state = language, state

        def forward(self, ids):
            return self.language.forward_with_state(ids, self.state)

    language = TransformerLanguageModel(7, BlockStack([SequenceBlock(CausalAttention(8, 2))], 1)).eval()
    ids = torch.tensor([[1, 2]])
    state = language.forward_with_state(ids)[1]
    with pytest.raises(ValueError, match=r"state is given to SequenceBlock.*repeated"):
        ChainExecutor(Continued(language, state).eval())([0, 0], ids)


def test_refused_networks(classifier, ids):
    x, edge_index = torch.randn(6, 3), torch.randint(6, (2, 12))
    with pytest.raises(ValueError, match=r"layers\.block'.*'layers\.blocks'"):
        ChainExecutor(classifier, "layers.block")
    with pytest.raises(ValueError, match="0 BlockStacks"):
        ChainExecutor(ResidualGraphNetwork())
    with pytest.raises(ValueError, match="4 -> 6, 6 -> 4"):
        ChainExecutor(nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4))), "0")
    with pytest.raises(ValueError, match=r"layer 1 of 'layers'.*\(6, 8\) to \(6, 4\)"):
        ChainExecutor(ResidualGraphNetwork((8, 4, 4, 8)).eval(), "layers").prepare(x, edge_index)
    with pytest.raises(ValueError, match="form no chain"):
        ChainExecutor(ResidualGraphNetwork(all_outputs=True).eval(), "layers").prepare(x, edge_index)
    with pytest.raises(ValueError, match="training mode"):
        ChainExecutor(copy.deepcopy(classifier).train()).prepare(*ids)
    with pytest.raises(ValueError, match="cache_bytes is -1"):
        ChainExecutor(classifier, cache_bytes=-1)


def test_decoder_whose_blocks_have_memories_of_their_own_is_no_chain():
    torch.manual_seed(0)
    encoder = BlockStack([SequenceBlock(SelfAttention(8, 2))], 2)
    decoder = BlockStack([CrossBlock(CausalAttention(8, 2, NoPositions()), CrossAttention(8, 2))], 2)
    network = TransformerEncoderDecoder(7, encoder, decoder, vocab_size=7).eval()
    names = [name for name, part in network.named_modules() if isinstance(part, BlockStack)]
    with pytest.raises(ValueError, match="2 BlockStacks"):
        ChainExecutor(network)
    x = torch.randint(7, (2, 4))
    assert len(names) == 2
    for name in names:
        executor = ChainExecutor(network, f"{name}.blocks")
        if network.get_submodule(name) is decoder:
            with pytest.raises(ValueError, match="form no chain"):
                executor.prepare(x, None, x)
        else:
            assert torch.equal(executor([0, 1], x, None, x), network(x, None, x))


def test_torchs_encoder_with_padding_and_a_pyg_network():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    encoder, x = nn.TransformerEncoder(layer, 3).eval(), torch.randn(1, 4, 8)
    padding = torch.tensor([[False, False, True, True]])
    fast = torch.backends.mha.get_fastpath_enabled()
    found = ChainExecutor(encoder, "layers")([0, 2], x, src_key_padding_mask=padding)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    with torch.no_grad():
        expected = encoder.layers[2](encoder.layers[0](x, None, padding), None, padding)
    torch.testing.assert_close(found[:, :2], expected[:, :2])
    edge_index = torch.randint(6, (2, 12))
    with pytest.raises(ValueError, match="form no chain"):  # its activations stand between the layers
        ChainExecutor(GCN(8, 8, 3, 8).eval(), "convs").prepare(torch.randn(6, 8), edge_index)


def test_path_type_is_kept():
    assert ChainExecutor(nn.Sequential(nn.Sequential(nn.Identity())), "0").original == LayerPath([0])


class WritingNetwork(nn.Module):
    """Residual layers that add to their input in place."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            x += self.linear(x).tanh()
            return x

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(self.Layer() for _ in range(3))

    def forward(self, x):
        h = 1 * x
        for layer in self.layers:
            h = layer(h)
        return h.mul_(2)


def test_layers_that_write_into_their_input_leave_kept_states_alone():
    torch.manual_seed(0)
    network, x = WritingNetwork().eval(), torch.randn(2, 4)
    run = ChainExecutor(network, "layers").prepare(x)
    for path in ([0, 1, 2], [0, 2], [0, 1], [0, 1, 2]):
        h = x.clone()
        for number in path:
            h = h + network.layers[number].linear(h).tanh()
        assert torch.allclose(run(path), 2 * h)
