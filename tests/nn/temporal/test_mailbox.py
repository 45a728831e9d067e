import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphseq.core import DataError, EventBatch, Neighbors
from graphseq.nn import APANEncoder, APANMemory, Mailbox
from graphseq.nn.temporal.plan import Distinct, plan_batch
from tests.reference import apan as reference

DIM, MAILS, HEADS = 6, 4, 2


def listed(box):
    """Mails of all nodes, newest first."""
    mail, mask = box.read(torch.arange(box.num_nodes))
    assert not mail[~mask].any()
    return [rows[kept].tolist() for rows, kept in zip(mail, mask, strict=True)]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_mailbox_equals_lists(data):
    num_nodes, num_mails = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    box, boxes = Mailbox(num_nodes, 2, num_mails).double(), reference.Boxes(num_nodes, num_mails)
    for call in range(data.draw(st.integers(0, 7))):
        sent = data.draw(st.integers(1, 3))
        entry = st.tuples(st.integers(0, sent - 1), st.integers(0, num_nodes - 1))
        deliveries = data.draw(st.lists(entry, max_size=8))
        mail = torch.randn(sent, 2, dtype=torch.float64)
        t = torch.randint(10 * call, 10 * call + 10, (sent,))
        index, receiver = torch.tensor(deliveries, dtype=torch.int64).view(-1, 2).t()
        box.deliver(mail, t, index, receiver)
        boxes.deliver([(node, mail[row], float(t[row])) for row, node in deliveries])
    for found, kept in zip(listed(box), boxes.mails, strict=True):
        torch.testing.assert_close(
            torch.tensor(found, dtype=torch.float64).view(-1, 2),
            torch.stack(kept) if kept else torch.zeros(0, 2, dtype=torch.float64),
            rtol=1e-12,
            atol=1e-12,
        )
    assert box.t.tolist() == boxes.times


def test_mailbox_keeps_what_it_has_when_it_grows_and_forgets_when_it_is_reset():
    box = Mailbox(3, 1, 2)
    for value in (1.0, 2.0, 3.0):
        box.deliver(torch.tensor([[value]]), torch.tensor([4]), torch.tensor([0]), torch.tensor([1]))
    box.resize(5)
    assert listed(box) == [[], [[3.0], [2.0]], [], [], []]
    twin = Mailbox(5, 1, 2)
    twin.load_state_dict(box.state_dict())
    assert listed(twin) == listed(copy.deepcopy(box)) == listed(box)
    box.reset_state()
    assert listed(box) == [[]] * 5
    assert not any(buffer.any() for buffer in box.buffers())


def encoder_case(msg_channels=0, rows=9, seed=0):
    torch.manual_seed(seed)
    encoder = APANEncoder(DIM, MAILS, HEADS, dropout=0.0, msg_channels=msg_channels).double()
    for parameter in encoder.parameters():  # no zeros or ones left that would hide a missing term
        nn.init.normal_(parameter, std=0.5)
    z = torch.randn(rows, DIM, dtype=torch.float64, requires_grad=True)
    mail = torch.randn(rows, MAILS, DIM + msg_channels, dtype=torch.float64)
    number = torch.arange(rows) % (MAILS + 1)
    return encoder, z, mail, torch.arange(MAILS) < number[:, None]


def looped(encoder, z, mail, mask):
    weights = dict(encoder.named_parameters())
    model = reference.APAN(weights, {}, len(z), DIM, MAILS, 0, HEADS)
    model.z = list(z)
    model.boxes.mails = [list(rows[kept]) for rows, kept in zip(mail, mask, strict=True)]
    return torch.stack([model.encode(node) for node in range(len(z))])


@pytest.mark.parametrize("msg_channels", [0, 1, 5])
def test_encoder_equals_loops_with_gradients(msg_channels):
    encoder, z, mail, mask = encoder_case(msg_channels)
    inputs = [z, *encoder.parameters()]
    found, expected = encoder(z, mail, mask), looped(encoder, z, mail, mask)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    direction = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad((found * direction).sum(), inputs),
        torch.autograd.grad((expected * direction).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
        assert one.any()


def test_attention_is_that_of_torch():
    encoder, z, mail, mask = encoder_case()
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True).double()
    with torch.no_grad():
        parts = [encoder.query, encoder.key, encoder.value]
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([encoder.query.bias, torch.randn(DIM), encoder.value.bias]))
        theirs.out_proj.load_state_dict(encoder.out.state_dict())
    keys = mail + encoder.rank.weight
    some = mask.any(1)
    expected, _ = theirs(z[some, None], keys[some], keys[some], key_padding_mask=~mask[some])
    found = encoder._attend(z, mail, mask)
    torch.testing.assert_close(found[some], expected.squeeze(1), rtol=1e-10, atol=1e-12)
    assert not found[~some].any()
    bound = nn.MultiheadAttention(400, 2).in_proj_weight.detach().abs().max()
    drawn = APANEncoder(400)
    assert all(
        0.98 < float(part.weight.detach().abs().max() / bound) < 1.02 for part in (drawn.query, drawn.key, drawn.value)
    )


def test_absent_mails_are_not_looked_at():
    encoder, z, mail, mask = encoder_case(msg_channels=2)
    other = torch.where(mask[..., None], mail, torch.full_like(mail, 1e30))
    assert torch.equal(encoder(z, mail, mask), encoder(z, other, mask))
    nothing = torch.zeros_like(mask)
    out = encoder(z, mail, nothing)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
    assert not encoder.value.weight.grad.any()
    assert encoder.first.weight.grad.any()


def test_order_of_mails_matters_by_their_rank_only():
    encoder, z, mail, _ = encoder_case()
    mask = torch.ones(len(z), MAILS, dtype=torch.bool)
    assert not torch.allclose(encoder(z, mail, mask), encoder(z, mail.flip(1), mask))
    with torch.no_grad():
        encoder.rank.weight.copy_(encoder.rank.weight[:1].expand(MAILS, -1))
    torch.testing.assert_close(encoder(z, mail, mask), encoder(z, mail.flip(1), mask))


def test_dropout_acts_in_training_only():
    encoder = APANEncoder(DIM, MAILS, HEADS, dropout=0.5)
    z, mail, mask = torch.randn(9, DIM), torch.randn(9, MAILS, DIM), torch.ones(9, MAILS, dtype=torch.bool)
    assert not torch.equal(encoder(z, mail, mask), encoder(z, mail, mask))
    encoder.eval()
    assert torch.equal(encoder(z, mail, mask), encoder(z, mail, mask))


def test_dropout_of_all_weights_leaves_nothing_of_the_mails():
    encoder, z, mail, mask = encoder_case()
    encoder.dropout = 0.9
    rows = 200
    z, mail, mask = z[:1].expand(rows, -1), mail[-1:].expand(rows, -1, -1), torch.ones(rows, MAILS, dtype=torch.bool)
    attended = encoder._attend(z, mail, mask)
    nothing = (attended == encoder.out.bias).all(1).double().mean()
    assert abs(nothing - 0.9 ** (MAILS * HEADS)) < 0.12  # 3.4 deviations
    kept = encoder.eval()._attend(z[:1], mail[:1], mask[:1])[0]
    encoder.train().dropout = 0.2
    mean = torch.stack([encoder._attend(z, mail, mask).mean(0) for _ in range(50)]).mean(0)
    torch.testing.assert_close(mean, kept, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_in_half_precision(dtype):
    encoder = APANEncoder(DIM, MAILS, HEADS, 0.0, 2)
    z, mail, mask = torch.randn(9, DIM), torch.randn(9, MAILS, DIM + 2), torch.rand(9, MAILS) < 0.5
    mask[0] = False
    exact = encoder(z, mail, mask)
    with torch.autocast("cpu", dtype):
        close = encoder(z, mail, mask)
    torch.testing.assert_close(close.float(), exact, rtol=0.1, atol=0.1)
    close.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


class Meetings:
    """History by hand: the same neighbours whenever it is asked, and a note of the question."""

    def __init__(self, neighbors):
        self.neighbors, self.asked = neighbors, []

    def recent(self, nodes, cut, k):
        self.asked.append((sorted(nodes.tolist()), cut, k))
        rows = [(self.neighbors.get(node, []) + [None] * k)[:k] for node in nodes.tolist()]
        node = torch.tensor([[own if n is None else n for n in row] for own, row in zip(nodes, rows, strict=True)])
        mask = torch.tensor([[n is not None for n in row] for row in rows])
        return Neighbors(node, torch.zeros_like(node), torch.zeros(*node.shape, 0), mask, torch.full_like(node, -1))


def commit(memory, src, dst, t, history, stored, **options):
    size = len(src)
    batch = EventBatch(
        torch.tensor(src), torch.tensor(dst), torch.tensor(t), torch.zeros(size, 0), torch.arange(size), 40,
        history=history, **options,
    )  # fmt: skip
    plan = plan_batch(batch, Distinct(memory.num_nodes), share_rows=True)
    read = memory.read(plan.nodes)
    memory.commit(plan, read, stored[plan.nodes])
    return read


def test_deliveries_by_hand():
    memory = APANMemory(7, 1, num_mails=3, num_neighbors=2, num_heads=1)
    stored = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0], [32.0], [64.0]])
    history = Meetings({0: [5, 2], 1: [5, 5], 3: [3]})
    # 0-1 sends 3, 0-2 sends 5, the loop of 3 sends 16; negatives (4, 6) send nothing
    options = {"neg_dst": torch.tensor([[4], [6], [4]]), "event_type": torch.tensor([1, 0, 1])}
    commit(memory, [0, 0, 3], [1, 2, 3], [10, 11, 12], history, stored, **options)
    assert history.asked == [([0, 1, 2, 3], 40, 2)]
    assert listed(memory.mailbox) == [
        [[4.0]],  # its own two: (3 + 5) / 2
        [[3.0]],
        [[4.5]],  # its own 5, and 4 of its neighbour 0
        [[16.0]],  # its own, and once more as its own neighbour
        [],
        [[pytest.approx((4 + 3 + 3) / 3)]],  # of 0 once, of 1 twice
        [],
    ]
    assert memory.mailbox.t.tolist() == [11, 10, 11, 12, 0, 11, 0]
    assert memory.memory.flatten().tolist() == [1, 2, 4, 8, 0, 0, 0]
    assert memory.num_events.tolist() == [2, 1, 1, 1, 0, 0, 0]


def test_what_a_corrector_is_told():
    memory = APANMemory(4, 2, num_neighbors=0, num_event_types=2, num_heads=1)
    stored = torch.ones(4, 2)
    first = commit(memory, [0, 0, 2], [1, 1, 2], [10, 30, 30], None, stored, event_type=torch.tensor([1, 0, 7]))
    assert not first.pending.any()
    assert memory.type_counts.tolist() == [[1, 1], [1, 1], [0, 1], [0, 0]]  # the last type takes what is beyond it
    second = memory.read(torch.arange(4))
    assert second.pending.tolist() == [True, True, True, False]
    assert second.num_events.tolist() == [2, 2, 1, 0]
    assert second.elapsed.tolist() == [30, 30, 30, 0]
    assert torch.equal(second.previous[:3], stored[:3])
    commit(memory, [0], [3], [50], None, stored)
    third = memory.read(torch.arange(4))
    assert third.elapsed.tolist() == [20, 30, 30, 50]
    assert third.last_update.tolist() == [50, 30, 30, 50]
    assert memory.type_counts.tolist() == [[1, 0], [1, 1], [0, 1], [0, 1]]  # no types given: source, destination


def test_times_and_counts_survive_half_precision():
    memory = APANMemory(4, 2, num_neighbors=0, num_heads=1)
    seconds = 1_600_000_001
    for _ in range(2):
        commit(memory, [0, 0], [1, 1], [seconds, seconds], None, torch.ones(4, 2))
    for kind in (torch.bfloat16, torch.float64):
        memory.to(kind)
        assert memory.mailbox.mail.dtype == memory.memory.dtype == kind
        assert memory.mailbox.t.tolist() == [seconds, seconds, 0, 0]
        assert memory.last_update.tolist() == [seconds, seconds, 0, 0]
        assert memory.num_events.tolist() == [2, 2, 0, 0]
    with torch.autocast("cpu", torch.bfloat16):
        assert memory.read(torch.arange(4)).measured.dtype == torch.float64


@pytest.mark.parametrize(
    "build",
    [
        lambda: Mailbox(0, 1),
        lambda: Mailbox(1, 0),
        lambda: Mailbox(1, 1, 0),
        lambda: APANEncoder(0),
        lambda: APANEncoder(5, num_heads=2),
        lambda: APANEncoder(4, num_mails=0),
        lambda: APANEncoder(4, dropout=1.0),
        lambda: APANEncoder(4, msg_channels=-1),
        lambda: APANMemory(0, 4),
        lambda: APANMemory(3, 4, num_neighbors=-1),
        lambda: APANMemory(3, 4, -1),
        lambda: Mailbox(3, 1).resize(2),
        lambda: APANMemory(3, 4).resize(2),
    ],
)
def test_wrong_sizes(build):
    with pytest.raises(ValueError, match=r"is (-?\d|0\.|1\.)"):
        build()


def test_wrong_deliveries():
    box = Mailbox(3, 2)
    one = torch.tensor([0])
    for mail, t, index, receiver in [
        (torch.zeros(1, 3), one, one, one),
        (torch.zeros(2, 2), one, one, one),
        (torch.zeros(1, 2), one, one, torch.tensor([0, 1])),
        (torch.zeros(1, 2), one, one[None], one[None]),
    ]:
        with pytest.raises(ValueError, match=r"mail is .*receiver .*\(S, 2\)"):
            box.deliver(mail, t, index, receiver)
    assert not box.count.any()


def test_refused_batches_leave_the_state_alone():
    stored = torch.ones(4, 2)
    memory = APANMemory(4, 2, num_heads=1)
    with pytest.raises(DataError, match="num_neighbors=0"):
        commit(memory, [0], [1], [3], None, stored)
    memory = APANMemory(4, 2, 3, num_neighbors=0, num_heads=1)
    with pytest.raises(DataError, match="0 features; .* 3"):
        commit(memory, [0], [1], [3], None, stored)
    assert not any(buffer.any() for buffer in memory.buffers())
