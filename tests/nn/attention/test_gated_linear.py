import math

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from graphseq.core import make
from graphseq.models import RecurrentLanguageModel, generate_tokens
from graphseq.nn import BlockStack, ConstantGate, GatedLinearAttention, LowRankGate, SequenceBlock, SwiGLU
from tests.reference import gated_linear as reference


def norm(x, weight, eps):
    return x / math.sqrt(float(x.square().mean()) + eps) * weight


def by_loops(layer, x):
    """The layer as its equation, head by head and step by step, for one sequence (T, D)."""
    q, k, v = (x @ part.weight.T for part in (layer.query, layer.key, layer.value))
    if layer.convolution is not None:
        mixed, weight = torch.cat([q, k, v], 1), layer.convolution.weight
        rows = [sum(weight[:, j] * mixed[t - j] for j in range(weight.shape[1]) if t >= j) for t in range(len(x))]
        mixed = torch.stack(rows)
        q, k, v = (mixed * mixed.sigmoid()).split([layer.key_size, layer.key_size, layer.value_size], 1)
    gate = layer.gate
    alpha = ((x @ gate.down.weight.T) @ gate.up.weight.T + gate.up.bias).sigmoid() ** (1 / 16)
    heads = []
    for part in zip(*(z.chunk(layer.num_heads, 1) for z in (q, k, v, alpha)), strict=True):
        o, _ = reference.outputs_and_state(*part)
        heads.append(torch.stack([norm(row, layer.norm.weight, 1e-5) for row in o]))
    r = x @ layer.output_gate.weight.T
    return (torch.cat(heads, 1) * r * r.sigmoid()) @ layer.output.weight.T


@pytest.mark.parametrize("kernel_size", [0, 3])
def test_layer_equals_its_equation(kernel_size):
    layer = GatedLinearAttention(8, 2, value_ratio=1.5, kernel_size=kernel_size).double()
    torch.nn.init.normal_(layer.norm.weight)
    torch.nn.init.normal_(layer.gate.up.bias, std=3.0)
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        y, _ = layer(x)
        for row in range(2):
            assert torch.allclose(y[row], by_loops(layer, x[row]), atol=1e-10)


def test_block_is_two_residual_steps():
    block = SequenceBlock(GatedLinearAttention(8, 2)).double()
    assert block.feed_forward.output.in_features == 24, "8/3 of 8, rounded up to a multiple of 8"
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    rms = functional.rms_norm
    h = x + block.mixer(rms(x, (8,), eps=1e-6))[0]
    z = rms(h, (8,), eps=1e-6)
    gate, value = (z @ block.feed_forward.gate_and_value.weight.T).chunk(2, -1)
    expected = h + (gate * gate.sigmoid() * value) @ block.feed_forward.output.weight.T
    assert torch.allclose(block(x)[0], expected, atol=1e-12)


def test_stack_repeats_blocks_with_weights_of_their_own():
    stack = BlockStack([SequenceBlock(GatedLinearAttention(8, 2)), SequenceBlock(GatedLinearAttention(8, 4))], 3)
    heads = [block.mixer.num_heads for block in stack.blocks]
    assert heads == [2, 4, 2, 4, 2, 4]
    weights = [block.mixer.query.weight for block in stack.blocks]
    assert not any(torch.equal(one, other) for n, one in enumerate(weights) for other in weights[:n])


def test_gates():
    gate = LowRankGate(8, 4, rank=3, temperature=0.5)
    x = torch.randn(2, 5, 8)
    expected = (gate.up(gate.down(x)).sigmoid()).log() / 0.5
    assert torch.allclose(gate(x), expected, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert gate(x).dtype == torch.float32, "sums of logarithms need single precision"
    assert torch.allclose(ConstantGate(4, 0.9)(x).exp(), torch.full((2, 5, 4), 0.9))
    kept = GatedLinearAttention(8, 2, gate=ConstantGate(4))
    assert (kept(torch.randn(1, 3, 8))[1][0]).shape == (1, 2, 2, 4)


def test_a_token_costs_the_same_at_every_position_and_text_is_that_of_the_whole_prompt():
    torch.manual_seed(1)
    blocks = [SequenceBlock(GatedLinearAttention(8, 2, kernel_size=3))]
    model = RecurrentLanguageModel(11, 8, recurrent=BlockStack(blocks, 2)).eval()
    counted, state = [], None
    ids = torch.randint(11, (1, 300))
    for part in ids.split([1, 1, 40, 1, 256, 1], 1):
        with FlopCounterMode(display=False) as counter:
            _, state = model.forward_with_state(part, state)
        if part.shape[1] == 1:
            counted.append(counter.get_total_flops())
    assert counted[1] == counted[2] == counted[3] > 0
    new = generate_tokens(model, ids[:, :20], 12, temperature=0.0)
    text = ids[:, :20]
    for _ in range(12):
        text = torch.cat([text, model(text)[:, -1:].argmax(-1)], 1)
    assert torch.equal(text[:, 20:], new)


def test_mixed_precision_keeps_the_state_in_single():
    layer = GatedLinearAttention(16, 2, kernel_size=3)
    x = torch.randn(2, 70, 16)
    exact, _ = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(x)
    assert state[0].dtype == torch.float32
    y, exact = y.detach(), exact.detach()
    assert float((y - exact).abs().max()) < 0.05 * float(exact.abs().max()) + 0.02


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: GatedLinearAttention(0), ValueError, "dim is 0"),
        (lambda: GatedLinearAttention(8, 0), ValueError, "num_heads is 0"),
        (lambda: GatedLinearAttention(8, 3), ValueError, "key_ratio gives a width of 4"),
        (lambda: GatedLinearAttention(8, 2, value_ratio=0.9), ValueError, "value_ratio gives a width of 7"),
        (lambda: GatedLinearAttention(8, 2, kernel_size=-1), ValueError, "kernel_size is -1"),
        (lambda: GatedLinearAttention(8, 2, gate=ConstantGate(8)), ValueError, "gate has 8 channels"),
        (lambda: LowRankGate(8, 4, temperature=0), ValueError, "temperature is 0"),
        (lambda: ConstantGate(4, 0.0), ValueError, "value is 0"),
        (lambda: SwiGLU(4, 0), ValueError, "hidden_channels is 0"),
        (lambda: BlockStack([]), ValueError, "blocks is empty"),
        (lambda: BlockStack([GatedLinearAttention(8)], 0), ValueError, "repeats is 0"),
        (lambda: BlockStack([GatedLinearAttention(8), GatedLinearAttention(16)]), ValueError, "widths 8, 16"),
        (lambda: SequenceBlock(make(torch.nn.Linear, 3, 3)), TypeError, "mixer is a Linear"),
        (lambda: RecurrentLanguageModel(5)(torch.tensor([[1, 5]])), ValueError, "ids is from 1 to 5"),
        (lambda: RecurrentLanguageModel(5)(torch.tensor([[-1, 2]])), ValueError, "0..4"),
    ],
)
def test_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
    x, layer = torch.randn(1, 3, 8), GatedLinearAttention(8, 2, kernel_size=3)
    with pytest.raises(ValueError, match="state has 1 parts; this layer returns 2"):
        layer(x, GatedLinearAttention(8, 2)(x)[1])
    with pytest.raises(ValueError, match="state has 1 entries"):
        BlockStack([layer], 2)(x, [None])


def test_a_gate_or_state_that_is_mistaken():
    for gate, said in ((ConstantGate, "ConstantGate"), ("low rank", "'low rank'")):
        with pytest.raises(TypeError, match=f"gate is {said}"):
            GatedLinearAttention(8, 2, gate=gate)
    layer, x = GatedLinearAttention(8, 2), torch.randn(2, 5, 8)
    for state in (layer(x)[1][0], "n"):
        with pytest.raises(ValueError, match="state is a"):
            layer(x, state)
