"""Embeddings of memories against what the libraries have, and against a search node by node."""

import copy
import math

import pytest
import torch
from torch import nn
from torch_geometric.nn import TransformerConv

from graphseq.nn import (
    APANEncoder,
    IdentityEmbedding,
    TemporalAttentionEmbedding,
    TemporalEmbedding,
    TemporalSumEmbedding,
    TimeEncoder,
    TimeProjectionEmbedding,
    TransformerEmbedding,
)
from graphseq.nn.temporal.plan import Distinct, plan_batch
from tests.models.temporal.memory_networks import MSG, NEAR, NODES, TIME, WIDTH, stream

START, END = 20, 32

pytestmark = pytest.mark.usefixtures("way")


def parts(embedding, start=START, **options):
    """Memories, a plan, times of last updates and a time encoder for it."""
    events = stream(**options)
    batch = events.batch(start, start + END - START)
    plan = plan_batch(
        batch,
        Distinct(NODES),
        embedding.num_neighbors,
        embedding.num_layers,
        share_rows=embedding.share_rows,
    )
    time_encoder = TimeEncoder(TIME, init="uniform").double()
    z = torch.randn(len(plan.nodes), WIDTH, dtype=torch.float64, requires_grad=True)
    last_update = torch.rand(len(plan.nodes), dtype=torch.float64) * 20
    return z, plan, last_update, time_encoder


def assert_same(ours, expected, given):
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)
    weight = torch.randn_like(ours)
    gradients = (torch.autograd.grad((value * weight).sum(), given) for value in (ours, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)


def randomise(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module.double()


@pytest.mark.parametrize("relative_time", ["update", "query"])
def test_transformer_equals_the_convolution_of_pyg(relative_time):
    embedding = TransformerEmbedding(WIDTH, 8, MSG, TIME, NEAR, dropout=0.0, relative_time=relative_time)
    layer = randomise(embedding).layers[0]
    z, plan, last_update, time_encoder = parts(embedding, start=6)  # early: some know nobody, others not K
    rows = plan.layers[0]
    assert rows.mask.any(1).logical_not().any()
    assert (rows.mask.any(1) & ~rows.mask.all(1)).any()
    conv = TransformerConv(WIDTH, 4, heads=2, edge_dim=MSG + TIME).double()
    for name, mine in (("query", layer.query), ("key", layer.key), ("value", layer.value), ("skip", layer.skip)):
        other = getattr(conv, f"lin_{name}")
        other.weight = mine.weight
        if mine.bias is None:
            nn.init.normal_(other.bias)  # of a key: it must not matter
        else:
            other.bias = mine.bias
    conv.lin_edge.weight = layer.edge.weight

    row, entry = rows.mask.nonzero(as_tuple=True)
    node = rows.neighbor[row, entry]
    now = last_update[node] if relative_time == "update" else rows.t[row].double()
    edge = torch.cat([rows.msg[row, entry].double(), time_encoder(now - rows.neighbor_t[row, entry])], dim=1)
    # each row is a node of its own, which the rows of memories point to
    count = len(z)
    expected = conv(torch.cat([z, z[rows.position]]), torch.stack([node, count + row]), edge)[count:]
    given = [z, *time_encoder.parameters(), *layer.parameters()]
    assert_same(embedding(z, plan, last_update, time_encoder), expected, given)


def test_attention_equals_multi_head_attention_row_by_row():
    embedding = TemporalAttentionEmbedding(WIDTH, 8, MSG, TIME, NEAR, dropout=0.0)
    layer = randomise(embedding).layers[0]
    z, plan, last_update, time_encoder = parts(embedding, start=6)
    rows = plan.layers[0]
    assert rows.mask.any(1).logical_not().any()
    size, width = WIDTH + TIME, WIDTH + MSG + TIME
    attention = nn.MultiheadAttention(size, 2, kdim=width, vdim=width).double()
    attention.q_proj_weight, attention.k_proj_weight = layer.query.weight, layer.key.weight
    attention.v_proj_weight, attention.out_proj.weight = layer.value.weight, layer.out.weight
    attention.out_proj.bias = layer.out.bias
    key_bias = torch.randn(size, dtype=torch.float64)
    del attention.in_proj_bias
    attention.in_proj_bias = torch.cat([layer.query.bias, key_bias, layer.value.bias])
    result = []
    for row in range(len(rows.position)):
        own = z[rows.position[row]]
        query = torch.cat([own, time_encoder(torch.zeros(()))])
        keys = [
            torch.cat([z[rows.neighbor[row, entry]], rows.msg[row, entry].double(), time_encoder(gap)])
            for entry, gap in enumerate(rows.t[row] - rows.neighbor_t[row])
            if rows.mask[row, entry]
        ]
        attended = torch.zeros(size, dtype=torch.float64)
        if keys:
            attended = attention(query[None], torch.stack(keys), torch.stack(keys))[0][0]
        result.append(layer.merge.second(torch.relu(layer.merge.first(torch.cat([attended, own])))))
    given = [z, *time_encoder.parameters(), *layer.parameters()]
    assert_same(embedding(z, plan, last_update, time_encoder), torch.stack(result), given)


@pytest.mark.parametrize("kind", [TemporalAttentionEmbedding, TransformerEmbedding])
def test_rows_that_share_lookups_equal_rows_with_their_own(kind):
    embedding = randomise(kind(WIDTH, 8, MSG, TIME, NEAR, dropout=0.0, relative_time="query"))
    assert embedding.share_lookups
    z, plan, last_update, time_encoder = parts(embedding, start=6)
    shared = plan_batch(plan.batch, Distinct(NODES), NEAR, 1, share_lookups=True)
    assert shared.layers[0].shared is not None
    assert torch.equal(shared.nodes, plan.nodes)
    given = [z, *time_encoder.parameters(), *embedding.parameters()]
    assert_same(embedding(z, shared, last_update, time_encoder), embedding(z, plan, last_update, time_encoder), given)


def test_a_sum_leaves_absent_neighbours_out():
    embedding = randomise(TemporalSumEmbedding(WIDTH, 8, MSG, TIME, NEAR))
    z, plan, last_update, time_encoder = parts(embedding, start=6)
    rows, layer = plan.layers[0], embedding.layers[0]
    before = embedding(z, plan, last_update, time_encoder)
    absent = ~rows.mask
    rows.neighbor, rows.neighbor_t, rows.msg = rows.neighbor.clone(), rows.neighbor_t.clone(), rows.msg.clone()
    rows.neighbor[absent], rows.neighbor_t[absent], rows.msg[absent] = 0, 7, 100.0
    assert torch.equal(embedding(z, plan, last_update, time_encoder), before)
    lonely = absent.all(1).nonzero()[0, 0]
    own = z[rows.position[lonely]]
    nothing = torch.zeros(WIDTH, dtype=torch.float64)
    expected = layer.merge(torch.cat([nothing, own, time_encoder(torch.zeros(()))]))
    torch.testing.assert_close(before[lonely], expected)


@pytest.mark.parametrize("own_sources", [False, True])
def test_projection_by_the_role_of_each_row(own_sources):
    """Sources of negatives are sources, however many negatives there are."""
    statistics = [3.0, 5.0, -2.0, 0.5]
    embedding = randomise(TimeProjectionEmbedding(WIDTH, statistics))
    z, plan, last_update, time_encoder = parts(embedding, own_sources=own_sources)
    count = END - START
    roles = [0] * count + [2] * count + [2] * 2 * count + [0] * 2 * count * own_sources
    rows = plan.layers[0]
    assert len(rows.position) == len(roles)
    result = []
    for place, t, role in zip(rows.position.tolist(), rows.t.tolist(), roles, strict=True):
        gap = (t - float(last_update[place]) - statistics[role]) / statistics[role + 1]
        result.append(
            torch.stack([s * (1 + gap * w + b) for s, w, b in zip(z[place], *embedding.parameters(), strict=True)])
        )
    given = [z, *embedding.parameters()]
    assert_same(embedding(z, plan, last_update, time_encoder), torch.stack(result), given)


def test_projection_keeps_seconds_in_whatever_type_it_is():
    embedding = TimeProjectionEmbedding(WIDTH, [0.0, 1.0, 0.0, 1.0])
    z, plan, last_update, time_encoder = parts(embedding)
    plan.layers[0].t = plan.layers[0].t + 1_600_000_000
    late = last_update.round() + 1_600_000_000
    embedding = embedding.double()
    exact = embedding(z, plan, late, time_encoder)
    torch.testing.assert_close(embedding.float()(z.float(), plan, late, time_encoder), exact.float())
    wide = TimeProjectionEmbedding(WIDTH, [1_600_000_000.0, 3.0, 1_600_000_000.0, 3.0]).bfloat16()
    exact = copy.deepcopy(wide).double()
    plan.layers[0].t = plan.layers[0].t + 1_600_000_000
    ours = wide(z.bfloat16(), plan, late, time_encoder)
    expected = exact(z.bfloat16().double(), plan, late, time_encoder).bfloat16()
    torch.testing.assert_close(ours, expected, rtol=0.03, atol=0.1)


def test_the_memory_itself():
    embedding = IdentityEmbedding(WIDTH)
    z, plan, last_update, time_encoder = parts(embedding)
    assert torch.equal(embedding(z, plan, last_update, time_encoder), z[plan.layers[0].position])


@pytest.mark.parametrize("kind", [TemporalAttentionEmbedding, TransformerEmbedding, TemporalSumEmbedding])
def test_old_neighbours_first_or_last_makes_no_difference(kind):
    embedding = randomise(kind(WIDTH, 8, MSG, TIME, NEAR)).eval()
    z, plan, last_update, time_encoder = parts(embedding)
    before = embedding(z, plan, last_update, time_encoder)
    rows = plan.layers[0]
    rows.neighbor, rows.neighbor_t = rows.neighbor.flip(1), rows.neighbor_t.flip(1)
    rows.msg, rows.mask = rows.msg.flip(1), rows.mask.flip(1)
    torch.testing.assert_close(embedding(z, plan, last_update, time_encoder), before, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", [TemporalAttentionEmbedding, TransformerEmbedding])
def test_dropout_keeps_the_mean(kind):
    embedding = randomise(kind(WIDTH, 8, MSG, TIME, NEAR, dropout=0.5))
    if kind is TemporalAttentionEmbedding:  # what comes after the attention is not linear: make it the identity
        merge = embedding.layers[0].merge
        nn.init.zeros_(merge.first.weight)
        nn.init.constant_(merge.first.bias, 100.0)
        merge.first.weight.data[:, :WIDTH] = torch.eye(WIDTH)
    z, plan, last_update, time_encoder = parts(embedding)
    still = embedding.eval()(z, plan, last_update, time_encoder)
    embedding.train()
    with torch.no_grad():
        draws = torch.stack([embedding(z, plan, last_update, time_encoder) for _ in range(2000)])
    assert (draws[0] != draws[1]).any()
    error = (draws.mean(0) - still).abs() / (draws.std(0) / math.sqrt(len(draws)) + 1e-9)
    assert error.max() < 5.5


def test_first_values():
    embedding = TemporalAttentionEmbedding(100, 100, 0, 100)
    layer = embedding.layers[0]
    assert layer.query.weight.abs().max().item() <= math.sqrt(6 / 400)
    assert not any(linear.bias.any() for linear in (layer.query, layer.value, layer.out))
    assert layer.merge.first.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.05)
    projection = TimeProjectionEmbedding(4000, [0.0, 1.0, 0.0, 1.0])
    for parameter in projection.parameters():
        assert parameter.std().item() == pytest.approx(1, rel=0.06)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TimeProjectionEmbedding(4, [0.0, 1.0]), r"time_statistics is \[0\.0, 1\.0\]"),
        (lambda: TimeProjectionEmbedding(4, [0.0, 1.0, 0.0, 0.0]), r"time_statistics.* 0\.0, 0\.0\]"),
        (lambda: TimeProjectionEmbedding(4, [math.nan, 1.0, 0.0, 1.0]), r"time_statistics is \[nan"),
        (lambda: TemporalAttentionEmbedding(5, 4, 0, 4), "multiple of num_heads"),
        (lambda: TemporalAttentionEmbedding(4, 6, 0, 4, num_layers=2), "out_channels is 6 .*dim 4"),
        (lambda: TemporalAttentionEmbedding(4, 4, 0, 4, dropout=1.0), "dropout is 1.0"),
        (
            lambda: TemporalAttentionEmbedding(4, 4, 0, 4, num_layers=2, relative_time="update"),
            "relative_time='update'",
        ),
        (lambda: TemporalAttentionEmbedding(4, 4, 0, 4, relative_time="now"), "'query' or 'update'"),
        (lambda: TransformerEmbedding(4, 5, 0, 4), "multiple of num_heads"),
        (lambda: TemporalSumEmbedding(4, 4, 0, 4, num_neighbors=0), "at least 1"),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_base_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="TemporalEmbedding .*forward"):
        TemporalEmbedding()(*[None] * 4)


def test_sizes_that_no_embedding_has():
    for make, said in [
        (lambda: TemporalAttentionEmbedding(8, 8, 0, 4, num_heads=0), "num_heads = 0"),
        (lambda: TransformerEmbedding(8, 8, 0, 4, num_heads=-2), "num_heads = -2"),
        (lambda: TemporalSumEmbedding(8, 8, -1, 4), "msg_channels is -1"),
        (lambda: TemporalAttentionEmbedding(8, 8, 0, 0), "time_dim 0"),
        (lambda: IdentityEmbedding(0), "dim is 0"),
    ]:
        with pytest.raises(ValueError, match=said):
            make()
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        APANEncoder(8, 3)(torch.zeros(5, 8), torch.zeros(5, 3, 8), torch.ones(1, 3, dtype=torch.bool))
