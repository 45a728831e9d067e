import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import TransformerConv

from graphseq.ops import neighbor_attention
from graphseq.ops.attention import plain
from tests.reference import attention as reference

pytestmark = pytest.mark.usefixtures("way")


def draw(
    roots=6, nodes=9, places=3, heads=2, dim=4, msg_dim=2, time_dim=3, dtype=torch.float64, times=torch.float64, seed=0
):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    query = tuple(normal(roots, heads, size).requires_grad_() for size in (dim, msg_dim, time_dim))
    z = normal(nodes, dim).requires_grad_()
    neighbor = torch.randint(nodes, (roots, places), generator=generator)
    dt = (torch.rand(roots, places, generator=generator, dtype=torch.float64) * 20).to(times)
    mask = torch.rand(roots, places, generator=generator) < 0.7
    mask[0] = False  # a root without neighbours
    if roots > 1 and places > 1:  # two neighbours that tie in everything
        neighbor[1], dt[1], mask[1] = neighbor[1, 0], dt[1, 0], True
    time = [normal(time_dim).requires_grad_() for _ in range(2)]
    dropout = (torch.rand(roots, heads, places, generator=generator) < 0.8).to(dtype) / 0.8
    return query, z, (neighbor, dt, normal(roots, places, msg_dim), mask), time, dropout


def attend(query, z, neighbor, dt, msg, *rest, **shared):
    """The function with its query and its result in blocks, as the definition has them."""
    sums = neighbor_attention(torch.cat(query, 2), z, neighbor, dt, msg, *rest, **shared)
    *blocks, share = sums.split([*(block.shape[2] for block in query), 1], 2)
    return *blocks, share.squeeze(2)


def compare(ours, theirs, inputs, tolerance):
    arriving = [torch.randn_like(block) for block in ours]
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two.to(one.dtype), rtol=tolerance, atol=tolerance)
    mine = torch.autograd.grad(ours, inputs, arriving)
    connected = 0 * sum(block.sum() for block in inputs)  # also when no root has neighbours
    other = torch.autograd.grad([block + connected for block in theirs], inputs, arriving)
    for number, (one, two) in enumerate(zip(mine, other, strict=True)):
        torch.testing.assert_close(
            one, two, rtol=tolerance, atol=tolerance, msg=lambda m, number=number: f"gradient {number}: {m}"
        )


@settings(max_examples=25, deadline=None)
@given(
    roots=st.integers(1, 5),
    nodes=st.integers(1, 6),
    places=st.integers(1, 4),
    heads=st.integers(1, 2),
    dim=st.integers(1, 4),
    msg_dim=st.integers(0, 2),
    time_dim=st.integers(1, 3),
    times=st.sampled_from([torch.int64, torch.float64]),
    dropped=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_equals_the_definition(roots, nodes, places, heads, dim, msg_dim, time_dim, times, dropped, seed):
    query, z, data, time, dropout = draw(roots, nodes, places, heads, dim, msg_dim, time_dim, times=times, seed=seed)
    mask = dropout if dropped else None
    ours = attend(query, z, *data, *time, mask)
    compare(ours, reference.neighbor_attention(query, z, *data, *time, mask), [*query, z, *time], 1e-10)
    whole = torch.cat(query, 2)
    pair = [form(whole, z, *data, *time, mask) for form in (neighbor_attention, plain.neighbor_attention)]
    compare(pair[:1], pair[1:], [*query, z, *time], 1e-10)


@pytest.mark.parametrize(("heads", "places", "msg_dim"), [(1, 1, 0), (2, 3, 2), (2, 1, 1), (1, 3, 0)])
@pytest.mark.parametrize("dropped", [False, True])
def test_gradcheck(heads, places, msg_dim, dropped):
    query, z, data, time, dropout = draw(4, 5, places, heads, 3, msg_dim, 2)
    blocks = [block for block in query if block.numel()]

    def function(z, time_weight, time_bias, *blocks):
        whole = blocks if msg_dim else (blocks[0], query[1], blocks[1])
        outputs = attend(whole, z, *data, time_weight, time_bias, dropout if dropped else None)
        return tuple(output for output in outputs if output.numel())

    assert torch.autograd.gradcheck(function, (z, *time, *blocks))


def test_roots_without_neighbours_give_zeros_and_no_gradient():
    query, z, (neighbor, dt, msg, mask), time, _ = draw()
    outputs = attend(query, z, neighbor, dt, msg, mask & False, *time)
    assert not any(output.any() for output in outputs)
    gradients = torch.autograd.grad(sum(output.sum() for output in outputs), [*query, z, *time])
    assert not any(gradient.any() for gradient in gradients)


def test_masked_entries_do_not_matter():
    query, z, (neighbor, dt, msg, mask), time, _ = draw()
    before = attend(query, z, neighbor, dt, msg, mask, *time)
    other = neighbor.where(mask, 0), dt.where(mask, 1e6), msg.where(mask.unsqueeze(-1), 1e6), mask
    after = attend(query, z, *other, *time)
    compare(after, before, [*query, z, *time], 1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_neighbours_does_not_matter(seed):
    query, z, data, time, dropout = draw(places=4, seed=seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    mixed = [block[:, order] for block in data]
    ours = attend(query, z, *mixed, *time, dropout[:, :, order])
    compare(ours, attend(query, z, *data, *time, dropout), [*query, z, *time], 1e-10)


def test_one_neighbour_is_copied():
    query, z, (neighbor, dt, msg, mask), time, _ = draw(places=1)
    mask = torch.ones_like(mask)
    sums, messages, _, share = attend(query, z, neighbor, dt, msg, mask, *time)
    torch.testing.assert_close(sums, z[neighbor].expand(-1, 2, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(messages, msg.expand(-1, 2, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(share, torch.ones_like(share), rtol=0, atol=1e-12)


def fold(query, weight, sizes):
    """Queries (R, H, C) times the weight (H * C, D + D_e + D_t) of the keys, scaled and split into blocks."""
    heads, channels = query.shape[1:]
    folded = torch.einsum("rhc,hcf->rhf", query, weight.view(heads, channels, -1)) / math.sqrt(channels)
    return folded.split(sizes, dim=-1)


def unfold(sums, share, weight, bias):
    """Sums of [z | msg | phi] (R, H, F) times the weight of the values, plus their bias for each share."""
    heads = sums.shape[1]
    values = torch.einsum("rhf,hcf->rhc", sums, weight.view(heads, -1, weight.shape[1]))
    return (values + share.unsqueeze(-1) * bias.view(heads, -1)).flatten(1)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("dropped", [False, True])
def test_expresses_multi_head_attention(heads, dropped, device):
    """TGN's own attention: keys and values are linear layers on [z | x | phi]."""
    _, z, data, time, dropout = draw(roots=8, places=4, heads=heads)
    key, value = (torch.nn.Linear(4 + 2 + 3, heads * 5).double().to(device) for _ in range(2))
    query = torch.randn(8, heads * 5, dtype=torch.float64, device=device, requires_grad=True)
    data, dropout = [block.to(device) for block in data], dropout.to(device)
    z, *time = (block.detach().to(device).requires_grad_() for block in (z, *time))
    mask = dropout if dropped else None
    expected = reference.explicit(query, z, *data, key, value, *time, heads, mask)

    blocks = fold(query.unflatten(1, (heads, -1)), key.weight, (4, 2, 3))
    *sums, share = attend(blocks, z, *data, *time, mask)
    ours = unfold(torch.cat(sums, -1), share, value.weight, value.bias)
    gradient = torch.autograd.grad(expected.square().sum(), key.bias, retain_graph=True)[0]
    compare([ours], [expected], [query, z, *time, key.weight, value.weight, value.bias], 1e-10)
    assert gradient.abs().max() < 1e-12, "the bias of the keys cancels in the softmax: leaving it out is right"


@pytest.mark.parametrize("heads", [1, 2])
def test_expresses_transformer_conv(heads):
    """PyG's layer, as its example of temporal graph networks uses it: edges carry [phi | x], for keys and values."""
    _, z, (neighbor, dt, msg, mask), time, _ = draw(roots=5, nodes=9, places=4, heads=heads)
    conv = TransformerConv(4, 6, heads=heads, edge_dim=3 + 2).double()
    root, place = mask.nonzero(as_tuple=True)
    edge_index = torch.stack([neighbor[root, place], root])  # roots are the first rows of z
    encoded = torch.cos(dt[root, place].unsqueeze(-1) * time[0] + time[1])
    expected = conv(z, edge_index, torch.cat([encoded, msg[root, place]], dim=-1))[:5]

    edge = torch.cat([conv.lin_edge.weight[:, 3:], conv.lin_edge.weight[:, :3]], dim=1)
    roots = z[:5]
    blocks = fold(conv.lin_query(roots).unflatten(1, (heads, -1)), torch.cat([conv.lin_key.weight, edge], 1), (4, 2, 3))
    *sums, share = attend(blocks, z, neighbor, dt, msg, mask, *time)
    weight = torch.cat([conv.lin_value.weight, edge], dim=1)
    ours = unfold(torch.cat(sums, -1), share, weight, conv.lin_value.bias) + conv.lin_skip(roots)
    parameters = [p for name, p in conv.named_parameters() if name != "lin_key.bias"]
    compare([ours], [expected], [z, *time, *parameters], 1e-10)


def test_single_precision_and_large_logits():
    query, z, data, time, dropout = draw(roots=20, nodes=30, places=5, dim=16, dtype=torch.float32)
    ours = attend(query, z, *data, *time, dropout)
    assert all(output.dtype == torch.float32 for output in ours)
    double = [block.detach().double().requires_grad_() for block in (*query, z, *time)]
    neighbor, dt, msg, mask = data
    theirs = reference.neighbor_attention(
        double[:3], double[3], neighbor, dt.float(), msg.double(), mask, *double[4:], dropout.double()
    )
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two.float(), rtol=1e-4, atol=1e-4)
    huge = attend(tuple(1e6 * block for block in query), z, *data, *time)
    assert all(output.isfinite().all() for output in huge)
    gradients = torch.autograd.grad(sum(output.sum() for output in huge), [*query, z, *time])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_unused_outputs_and_frozen_inputs():
    query, z, data, time, _ = draw()
    theirs = reference.neighbor_attention(query, z, *data, *time)
    ours = attend(query, z, *data, *time)
    compare(ours[:1], theirs[:1], [*query, z, *time], 1e-10)
    frozen = [parameter.detach() for parameter in time]
    ours = attend(query, z.detach(), *data, *frozen)
    compare(ours, reference.neighbor_attention(query, z.detach(), *data, *frozen), list(query), 1e-10)


def test_repeated_backward_and_untouched_inputs():
    query, z, data, time, dropout = draw()
    inputs = [*query, z, *data, *time, dropout]
    before = [tensor.detach().clone() for tensor in inputs]
    outputs = attend(query, z, *data, *time, dropout)
    loss = sum(output.square().sum() for output in outputs)
    first = torch.autograd.grad(loss, [*query, z, *time], retain_graph=True)
    second = torch.autograd.grad(loss, [*query, z, *time])
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    assert all(torch.equal(one, two) for one, two in zip(inputs, before, strict=True))


def test_nothing_is_kept_without_gradients():
    query, z, data, time, _ = draw()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        with torch.no_grad():
            quiet = attend(query, z, *data, *time)
        assert not kept
        tracked = attend(query, z, *data, *time)
        assert kept
    assert all(output.grad_fn is None for output in quiet)
    assert all(torch.equal(one, two) for one, two in zip(quiet, tracked, strict=True))


def test_autocast_computes_in_single_precision():
    query, z, (neighbor, dt, msg, mask), time, _ = draw(dtype=torch.float32)
    expected = attend(query, z, neighbor, dt, msg, mask, *time)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same = attend(query, z, neighbor, dt, msg, mask, *time)
        half = attend(tuple(block.bfloat16() for block in query), z, neighbor, dt, msg, mask, *time)
    assert all(torch.equal(one, two) for one, two in zip(same, expected, strict=True))
    assert all(output.dtype == torch.float32 for output in half)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_a_dropout_mask_of_another_type_is_taken(kind):
    query, z, data, time, dropout = draw(dtype=torch.float32)
    mask = (dropout > 0).float() * 2  # 0 and 2 in any type
    expected = attend(query, z, *data, *time, mask)
    found = attend(query, z, *data, *time, mask.to(kind))
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_second_derivative_is_refused():
    query, z, data, time, _ = draw()
    outputs = attend(query, z, *data, *time)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(outputs[0].sum(), z, create_graph=True)


def test_no_roots():
    query, z, data, time, _ = draw(roots=1)
    outputs = attend(tuple(block[:0] for block in query), z, *(block[:0] for block in data), *time)
    assert [tuple(output.shape) for output in outputs] == [(0, 2, 4), (0, 2, 2), (0, 2, 3), (0, 2)]
    gradients = torch.autograd.grad(sum(output.sum() for output in outputs), [z, *time])
    assert not any(gradient.any() for gradient in gradients)


def test_wrong_arguments():
    query, z, (neighbor, dt, msg, mask), time, _ = draw()
    with pytest.raises(ValueError, match="query of width 8.* 9 "):
        neighbor_attention(torch.cat(query, 2)[..., 1:], z, neighbor, dt, msg, mask, *time)
    with pytest.raises(ValueError, match="gradient .*msg and dt"):
        attend(query, z, neighbor, dt, msg.requires_grad_(), mask, *time)


@settings(max_examples=25, deadline=None)
@given(
    roots=st.integers(1, 5),
    slots=st.integers(1, 3),
    heads=st.integers(1, 2),
    places=st.integers(1, 4),
    msg_dim=st.integers(0, 2),
    taken=st.floats(0, 1),
    dropped=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_rows_that_share_a_root_equal_rows_of_their_own(roots, slots, heads, places, msg_dim, taken, dropped, seed):
    query, z, data, time, _ = draw(roots, 6, places, heads, msg_dim=msg_dim, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    later = torch.rand(roots, slots, generator=generator, dtype=torch.float64) * 5
    slot = torch.randperm(roots * slots, generator=generator)[: max(int(taken * roots * slots), 1)]
    dropout = (torch.rand(roots, slots * heads, places, generator=generator) < 0.8).double() / 0.8
    ours = attend(query, z, *data, *time, dropout if dropped else None, later=later, slot=slot)
    root, (neighbor, dt, msg, mask) = slot // slots, data
    own = tuple(block[root] for block in query)
    gaps = dt[root] + later.flatten()[slot, None]
    keep = dropout.view(roots * slots, heads, places)[slot] if dropped else None
    theirs = reference.neighbor_attention(own, z, neighbor[root], gaps, msg[root], mask[root], *time, keep)
    compare(ours, theirs, [*query, z, *time], 1e-10)
    given = (torch.cat(query, 2), z, *data, *time, dropout if dropped else None)
    pair = neighbor_attention(*given, later=later, slot=slot), plain.neighbor_attention(*given, later, slot)
    compare(pair[:1], pair[1:], [*query, z, *time], 1e-10)


def test_shared_roots_in_several_chunks_and_real_seconds(monkeypatch):
    monkeypatch.setattr("graphseq.ops.attention.fused._CHUNK", 2)
    query, z, (neighbor, dt, msg, mask), time, _ = draw(roots=5, dtype=torch.float32)
    dt, later = (dt * 130_000).long(), torch.arange(10).view(5, 2) * 1_999
    wide = [block.detach().double().requires_grad_() for block in (*query, z, *time)]
    ours = attend(query, z, neighbor, dt, msg, mask, *time, later=later, slot=torch.arange(10))
    root = torch.arange(10) // 2
    gaps = dt[root] + later.view(-1, 1)
    own, data = tuple(block[root] for block in wide[:3]), (neighbor[root], gaps, msg[root].double(), mask[root])
    theirs = reference.neighbor_attention(own, wide[3], *data, *wide[4:])
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two.float(), rtol=1e-4, atol=1e-5)
    mine = torch.autograd.grad(ours[0].sum() + ours[2].square().sum(), [*query, z])
    other = torch.autograd.grad(theirs[0].sum() + theirs[2].square().sum(), wide[:4])
    for one, two in zip(mine, other, strict=True):
        torch.testing.assert_close(one, two.float(), rtol=1e-3, atol=1e-4)


def test_slots_without_their_moments():
    query, z, data, time, _ = draw()
    with pytest.raises(ValueError, match="later and slot"):
        attend(query, z, *data, *time, slot=torch.arange(6))


def test_what_is_not_finite_is_passed_on():
    query, z, (neighbor, dt, msg, mask), time, _ = draw(dtype=torch.float32)
    neighbor[2], mask[2], neighbor[3] = 5, True, 4
    with torch.no_grad():
        z[5] = float("nan")
    outputs = attend(query, z, neighbor, dt, msg, mask, *time)
    assert all(output[2].isnan().all() for output in outputs)
    assert all(output[3].isfinite().all() for output in outputs)
    gradients = torch.autograd.grad(outputs[0].sum(), [z, *time])
    assert all(gradient.isnan().any() for gradient in gradients)


@pytest.mark.parametrize("wrong", [-1, 9])
def test_neighbours_that_are_no_rows(wrong):
    query, z, (neighbor, dt, msg, mask), time, _ = draw()
    neighbor[1, 0] = wrong
    with pytest.raises(IndexError, match="out of range|neighbor"):
        attend(query, z, neighbor, dt, msg, mask, *time)


def test_arguments_of_any_strides(way):
    """What products by head make is not contiguous; results must not be written to a copy of it."""
    query, z, (neighbor, dt, msg, mask), time, dropout = draw()
    arriving = torch.randn(6, 2, 10, dtype=torch.float64)

    def gradients(query, z, *data):
        inputs = [block.detach().requires_grad_() for block in (query, z, *time)]
        sums = neighbor_attention(*inputs[:2], *data, *inputs[2:], dropout)
        return sums, *torch.autograd.grad(sums, inputs, arriving)

    whole = torch.cat(query, 2).detach()
    expected = gradients(whole, z, neighbor, dt, msg, mask)
    turned = whole.transpose(0, 2).contiguous().transpose(0, 2), z.t().contiguous().t()
    arriving = arriving.transpose(0, 1).contiguous().transpose(0, 1)
    data = [block.t().contiguous().t() for block in (neighbor, dt)] + [msg, mask.t().contiguous().t()]
    found = gradients(*turned, data[0], data[1], data[2], data[3])
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
