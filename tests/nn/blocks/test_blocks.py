"""Residual blocks and stacks: torch's own layers, placement of the norms, hidden states, refusals."""

import copy
import itertools

import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.nn import (
    BlockStack,
    CausalAttention,
    CrossAttention,
    CrossBlock,
    FeedForward,
    GatedFeedForward,
    GatedLinearAttention,
    LearnedPositions,
    MixLNStack,
    NoPositions,
    PostNorm,
    PreNorm,
    RotaryPositions,
    SandwichNorm,
    SelfAttention,
    SequenceBlock,
    SwiGLU,
)

DIM, HEADS, HIDDEN = 8, 2, 12
OPTIONS = {"positions": NoPositions(), "bias": True}
PATHS = {True: PreNorm, False: PostNorm}


def layer_norm():
    return make(nn.LayerNorm, DIM)


def feed_forward():
    return FeedForward(DIM, HIDDEN, make(nn.ReLU))


def copied(attention, other):
    """Copy the weights of torch's attention into one of ours."""
    if isinstance(attention, CrossAttention):
        attention.query.weight.copy_(other.in_proj_weight[:DIM])
        attention.query.bias.copy_(other.in_proj_bias[:DIM])
        attention.key_and_value.weight.copy_(other.in_proj_weight[DIM:])
        attention.key_and_value.bias.copy_(other.in_proj_bias[DIM:])
    else:
        attention.projection.weight.copy_(other.in_proj_weight)
        attention.projection.bias.copy_(other.in_proj_bias)
    attention.output.load_state_dict(other.out_proj.state_dict())


@torch.no_grad()
def fill(block, other):
    """Copy the weights of a layer of torch into a block."""
    copied(block.mixer, other.self_attn)
    block.feed_forward.input.load_state_dict(other.linear1.state_dict())
    block.feed_forward.output.load_state_dict(other.linear2.state_dict())
    norms = [block.mixer_residual.norm, block.feed_forward_residual.norm]
    if isinstance(block, CrossBlock):
        copied(block.cross, other.multihead_attn)
        norms.insert(1, block.cross_residual.norm)
    for place, norm in enumerate(norms, 1):
        # weights that differ from place to place, so that a norm in a wrong place is seen
        getattr(other, f"norm{place}").weight.uniform_(0.5, 1.5)
        norm.load_state_dict(getattr(other, f"norm{place}").state_dict())


def same_gradients(found, expected, blocks, others, inputs):
    """Compare the gradients of two outputs with respect to inputs and to weights of all parts of the blocks."""
    mine, theirs = list(inputs), list(inputs)
    for block, other in zip(blocks, others, strict=True):
        mine += [block.mixer.projection.weight, block.mixer.output.weight, block.mixer_residual.norm.weight]
        theirs += [other.self_attn.in_proj_weight, other.self_attn.out_proj.weight, other.norm1.weight]
        mine += [block.feed_forward.input.weight, block.feed_forward.output.bias]
        theirs += [other.linear1.weight, other.linear2.bias]
        if isinstance(block, CrossBlock):
            mine += [block.cross.output.weight, block.cross_residual.norm.weight]
            theirs += [other.multihead_attn.out_proj.weight, other.norm2.weight]
    weight = torch.randn_like(found)
    one, two = (torch.autograd.grad((y * weight).sum(), given) for y, given in ((found, mine), (expected, theirs)))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("before", [True, False])
def test_encoder_equals_that_of_torch(before):
    theirs = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(DIM, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=before),
        2,
        nn.LayerNorm(DIM),
        enable_nested_tensor=False,
    ).double()
    block = SequenceBlock(SelfAttention(DIM, HEADS, **OPTIONS), feed_forward(), PATHS[before](DIM, layer_norm()))
    ours = BlockStack([block], 2, layer_norm()).double()
    for mine, other in zip(ours.blocks, theirs.layers, strict=True):
        fill(mine, other)
    lengths = torch.tensor([5, 3])
    padding = torch.arange(5) >= lengths[:, None]
    x = torch.randn(2, 5, DIM, dtype=torch.float64, requires_grad=True)
    expected = theirs(x, src_key_padding_mask=padding).masked_fill(padding[..., None], 0)
    y, _ = ours(x, lengths=lengths)
    torch.testing.assert_close(y, expected)
    same_gradients(y, expected, ours.blocks, theirs.layers, [x])


@pytest.mark.parametrize("before", [True, False])
def test_decoder_block_equals_that_of_torch(before):
    theirs = nn.TransformerDecoderLayer(DIM, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=before).double()
    cross = CrossAttention(DIM, HEADS, bias=True)
    ours = CrossBlock(
        CausalAttention(DIM, HEADS, **OPTIONS), cross, feed_forward(), PATHS[before](DIM, layer_norm())
    ).double()
    fill(ours, theirs)
    x, memory = (torch.randn(2, steps, DIM, dtype=torch.float64, requires_grad=True) for steps in (5, 4))
    inside = torch.tensor([[True] * 4, [True, True, False, False]])
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    expected = theirs(x, memory, mask, memory_key_padding_mask=~inside, tgt_is_causal=True)
    y, _ = ours(x, memory=ours.cross.project(memory), inside=inside)
    torch.testing.assert_close(y, expected)
    same_gradients(y, expected, [ours], [theirs], [x, memory])


def test_each_path_is_its_formula():
    x, y = torch.randn(2, 1, 3, DIM).unbind(0)
    norm = nn.LayerNorm(DIM)
    nn.init.uniform_(norm.weight)
    pre, post, sandwich = (kind(DIM, copy.deepcopy(norm)) for kind in (PreNorm, PostNorm, SandwichNorm))
    for path, entered, left in ((pre, norm(x), x + y), (post, x, norm(x + y)), (sandwich, norm(x), x + norm(y))):
        assert torch.equal(path.enter(x), entered)
        assert torch.equal(path.leave(x, y), left)
    dropped = PreNorm(DIM, dropout=0.5)
    assert (dropped.leave(torch.zeros(1000), torch.ones(1000)) == 0).any()


def mixed(share, layers=4, **options):
    torch.manual_seed(0)
    return MixLNStack(CausalAttention(DIM, HEADS), layers, share, **options)


def test_share_of_post_norm_blocks():
    counts = {(12, 0.25): 3, (24, 0.25): 6, (32, 0.0625): 2, (100, 0.29): 29, (5, 0.0): 0, (5, 1.0): 5, (7, 0.5): 3}
    for (layers, share), number in counts.items():
        with torch.device("meta"):
            stack = MixLNStack(CausalAttention(DIM, HEADS), layers, share)
        kinds = [type(block.mixer_residual) for block in stack.blocks]
        assert kinds == [PostNorm] * number + [PreNorm] * (layers - number)
        assert stack.num_post == number
        assert kinds == [type(block.feed_forward_residual) for block in stack.blocks]
    sizes = {sum(p.numel() for p in mixed(share).parameters()) for share in (0, 0.25, 0.5, 1)}
    assert len(sizes) == 1


@pytest.mark.parametrize(("share", "kind"), [(0.0, PreNorm), (1.0, PostNorm)])
def test_ends_of_the_share_are_the_plain_networks(share, kind):
    stack = mixed(share)
    plain = BlockStack([SequenceBlock(CausalAttention(DIM, HEADS), residual=kind(DIM))], 4)
    plain.load_state_dict(stack.state_dict())
    x = torch.randn(2, 5, DIM)
    assert torch.equal(stack(x)[0], plain(x)[0])
    # blocks are no copies of one another
    assert len({float(block.mixer.output.weight.detach().sum()) for block in stack.blocks}) == 4


def test_stream_is_normalised_in_the_first_blocks_and_grows_in_the_others():
    torch.manual_seed(0)
    hidden = MixLNStack(CausalAttention(32, HEADS), 8, 0.5).hidden_states(10 * torch.randn(8, 16, 32))
    sizes = [float(h.detach().square().mean(-1).sqrt().mean()) for h in hidden]
    assert all(size == pytest.approx(1, abs=1e-5) for size in sizes[1:5])
    assert all(size < after for size, after in itertools.pairwise(sizes[4:]))


def test_hidden_states_lead_to_the_outputs():
    stack = mixed(0.5, norm=make(nn.LayerNorm, DIM), positions=LearnedPositions(DIM, 9))
    x, lengths = torch.randn(2, 5, DIM), torch.tensor([5, 2])
    hidden = stack.hidden_states(x, lengths)
    assert len(hidden) == 5
    inside = torch.arange(5)[:, None] < lengths[:, None, None]
    assert torch.equal(stack.norm(hidden[-1]).masked_fill(~inside, 0), stack(x, lengths=lengths)[0])
    assert torch.equal(hidden[0][0], x[0] + stack.positions.weight[:5])
    assert isinstance(stack.blocks[3].feed_forward_residual.norm, nn.LayerNorm)


def test_activations_are_those_that_are_handed_in():
    x = torch.randn(2, 3, 4)
    plain = FeedForward(4, 6, make(nn.Tanh))
    expected = torch.tanh(x @ plain.input.weight.T + plain.input.bias) @ plain.output.weight.T + plain.output.bias
    torch.testing.assert_close(plain(x), expected)
    gated = GatedFeedForward(4, 6, make(nn.ReLU))
    gate, value = (x @ gated.gate_and_value.weight.T).chunk(2, -1)
    torch.testing.assert_close(gated(x), (gate.relu() * value) @ gated.output.weight.T)
    assert [sum(p.numel() for p in layer(96).parameters()) for layer in (GatedFeedForward, SwiGLU)] == [8 * 96**2] * 2
    assert sum(p.numel() for p in FeedForward(96, bias=False).parameters()) == 8 * 96**2


def test_bidirectional_is_said():
    encoder, decoder = SequenceBlock(SelfAttention(DIM, HEADS)), SequenceBlock(CausalAttention(DIM, HEADS))
    assert BlockStack([decoder, encoder]).bidirectional
    assert not BlockStack([decoder, SequenceBlock(GatedLinearAttention(DIM))]).bidirectional


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: PreNorm(0), ValueError, "dim is 0"),
        (lambda: PostNorm(8, dropout=1.0), ValueError, "dropout is 1"),
        (lambda: SequenceBlock(CausalAttention(8), residual=make(nn.Identity)), TypeError, "residual is a Identity"),
        (lambda: SequenceBlock(CausalAttention(8), residual=PreNorm(4)), ValueError, "width 4 and the mixer 8"),
        (lambda: CrossBlock(CausalAttention(8), CrossAttention(4)), ValueError, "cross has width 4"),
        (lambda: CrossBlock(CausalAttention(8), CrossAttention(8))(torch.zeros(1, 2, 8)), ValueError, "memory is"),
        (lambda: MixLNStack(CausalAttention(8), 2, 1.5), ValueError, "post_share is 1.5"),
        (lambda: MixLNStack(CausalAttention(8), 2, -0.1), ValueError, "post_share is -0.1"),
        (lambda: MixLNStack(CausalAttention(8), 2, float("nan")), ValueError, "post_share is nan"),
        (lambda: MixLNStack(CausalAttention(8), 0), ValueError, "num_layers is 0"),
        (lambda: MixLNStack(CausalAttention(8), 2.0), ValueError, "num_layers is 2.0"),
        (lambda: PreNorm(8, nn.LayerNorm), TypeError, "norm is .*LayerNorm"),
        (lambda: PreNorm(8, nn.LayerNorm(4)), ValueError, "give a norm of 8 features"),
        (lambda: SequenceBlock(CausalAttention(8), FeedForward(4)), ValueError, "width 4 and the mixer 8"),
        (lambda: BlockStack(SequenceBlock(CausalAttention(8))), TypeError, "blocks is a SequenceBlock"),
        (lambda: BlockStack([CausalAttention(8)], positions=RotaryPositions()), TypeError, "belongs to the attention"),
        (
            lambda: SequenceBlock(GatedLinearAttention(8))(torch.zeros(1, 2, 8), prefix=torch.tensor([1])),
            TypeError,
            "prefix is given to a block whose mixer GatedLinearAttention",
        ),
        (lambda: FeedForward(8, activation="gelu"), TypeError, "activation is 'gelu'"),
        (lambda: GatedFeedForward(8, activation=nn.SiLU), TypeError, "activation is .*SiLU"),
        (lambda: FeedForward(8, 0), ValueError, "hidden_channels is 0"),
        (lambda: FeedForward(8, dropout=-0.1), ValueError, "dropout is -0.1"),
        (
            lambda: BlockStack([SequenceBlock(CausalAttention(8))], positions=LearnedPositions(4, 9)),
            ValueError,
            "widths 8, 4",
        ),
    ],
)
def test_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
