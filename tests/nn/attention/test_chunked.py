import math

import pytest
import torch
from torch.nn import functional

from graphseq.core import make
from graphseq.nn import ChunkedAttention, GatedChunkedAttention, MovingAverage, TreeConvolution
from graphseq.ops import chunked_attention


def by_loops(q, k, v, bias):
    """Attention of one sequence, step by step, each over the steps of its chunk up to it."""
    size, out = len(bias), []
    for t in range(len(q)):
        begin = t // size * size
        scores = torch.stack([q[t] @ k[s] / math.sqrt(q.shape[1]) + bias[t - s] for s in range(begin, t + 1)])
        out.append(scores.softmax(0) @ v[begin : t + 1])
    return torch.stack(out)


@pytest.mark.parametrize("size", [1, 3, 4, 11, 20])
def test_equals_loops_and_their_gradients(size):
    q, k = torch.randn(2, 2, 11, 4, dtype=torch.float64).unbind()
    leaves = [q, k, torch.randn(2, 11, 5, dtype=torch.float64), torch.randn(size, dtype=torch.float64)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    o, _ = chunked_attention(*leaves)
    expected = torch.stack([by_loops(*(leaf[row] for leaf in leaves[:3]), leaves[3]) for row in range(2)])
    assert torch.allclose(o, expected, atol=1e-10)
    incoming = torch.randn_like(o)
    gradients = [torch.autograd.grad(out, leaves, incoming) for out in (o, expected)]
    assert all(torch.allclose(one, other, atol=1e-10) for one, other in zip(*gradients, strict=True))


def test_chunks_are_apart_but_for_what_the_mixer_brings():
    x = torch.randn(1, 12, 8, dtype=torch.float64)
    moved = x.clone()
    moved[:, 3] += 1
    reached = {}
    for name, mixer in {"none": None, "tree": TreeConvolution(8, 2, 2, initialization="normal")}.items():
        layer = ChunkedAttention(8, mixer, chunk_size=4).double()
        reached[name] = ((layer(x)[0] - layer(moved)[0]).abs().amax((0, 2)) > 1e-12).tolist()
    assert reached["none"] == [False] * 3 + [True] + [False] * 8
    # the tree reaches to step 6, and whatever is later in the chunk of a reached step attends to it
    assert reached["tree"] == [False] * 3 + [True] * 5 + [False] * 4


def test_a_chunk_as_long_as_the_sequence_is_full_attention():
    layer = ChunkedAttention(8, chunk_size=16).double()
    x = torch.randn(2, 10, 8, dtype=torch.float64)
    q, k, v = layer.projection(x).chunk(3, -1)
    expected = layer.output(functional.scaled_dot_product_attention(q, k, v, is_causal=True))
    assert torch.allclose(layer(x)[0], expected, atol=1e-12)


def test_gated_layer_equals_its_equation():
    layer = GatedChunkedAttention(6, MovingAverage(6, 2), chunk_size=3, key_size=4, value_size=5).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    x = torch.randn(1, 7, 6, dtype=torch.float64)
    normed = functional.rms_norm(x, (6,), layer.norm.weight, 1e-6)
    mixed = layer.mixer(normed)[0][0]
    z, gamma, u, h = (mixed @ layer.mixed.weight.T + layer.mixed.bias).split([4, 5, 6, 6], 1)
    z, gamma, u = z * z.sigmoid(), gamma * gamma.sigmoid(), u.sigmoid()
    q, k = (layer.scales[n] * z + layer.offsets[n] for n in (0, 1))
    v = normed[0] @ layer.value.weight.T + layer.value.bias
    o = by_loops(q, k, v * v.sigmoid(), layer.bias)
    h = h + (gamma * o) @ layer.attended.weight.T
    assert torch.allclose(layer(x)[0][0], u * h * h.sigmoid() + (1 - u) * x[0], atol=1e-10)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ChunkedAttention(8, chunk_size=0), "chunk_size is 0"),
        (lambda: ChunkedAttention(8, MovingAverage(4)), "mixer has inputs and outputs of size 4 and 4"),
        (lambda: ChunkedAttention(8, make(torch.nn.Identity)), "size None"),
        (lambda: GatedChunkedAttention(8, key_size=0), "key_size is 0"),
        (lambda: GatedChunkedAttention(8, value_size=0), "value_size is 0"),
        (lambda: chunked_attention(torch.zeros(1, 4, 2), torch.zeros(1, 4, 3), torch.zeros(1, 4, 2), torch.zeros(2)),
         r"\(1, 4, 3\)"),
    ],
)  # fmt: skip
def test_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("kind", [ChunkedAttention, GatedChunkedAttention])
def test_half_precision_empty_batches_and_states_of_others(kind):
    layer, x = kind(4, MovingAverage(4), chunk_size=3), torch.randn(2, 5, 4)
    y, state = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        low, _ = layer(x)
        again, _ = layer(x, state)
    torch.testing.assert_close(low.float(), y, atol=0.05, rtol=0.05)
    assert again.isfinite().all()
    assert layer(x[:0])[0].shape == (0, 5, 4)
    assert kind(4, MovingAverage(4), chunk_size=3).bfloat16()(x.bfloat16())[0].dtype == torch.bfloat16
    for given in (state[0], (state[0], state[0]), "state"):
        with pytest.raises(ValueError, match="state"):
            layer(x, given)
    for mixer, said in ((MovingAverage, "MovingAverage"), ("ema", "'ema'")):
        with pytest.raises(TypeError, match=f"mixer is {said}"):
            kind(4, mixer)
