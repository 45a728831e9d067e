import itertools

import pytest
import torch

from graphseq.core.spec import import_path, record
from graphseq.models import AttentionEncoderDecoder, EncoderDecoder, PointerNet
from graphseq.nn import PointFeedback
from tests.reference import pointing as reference

LENGTHS = torch.tensor([5, 3, 4])
TARGETS = torch.tensor([[0, 4, 2, 1], [2, 0, -100, -100], [3, 1, 0, -100]])


def points(sizes=LENGTHS, width=5):
    x = torch.full((len(sizes), width, 2), 1e3, dtype=torch.float64)
    for row, size in enumerate(sizes.tolist()):
        x[row, :size] = torch.rand(size, 2, dtype=torch.float64)
    return x


def wide(model):
    """Weights far from 0, so that distributions are not nearly uniform."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.double().eval()


def build(kind, size=5, **options):
    if kind == "pointer":
        return wide(PointerNet(2, 6, **options))
    if kind == "coordinates":
        return wide(EncoderDecoder(size, in_channels=2, hidden_channels=6, feedback=PointFeedback(2), **options))
    return wide({"fixed": EncoderDecoder, "attention": AttentionEncoderDecoder}[kind](
        size, in_channels=2, hidden_channels=6, **options
    ))  # fmt: skip


KINDS = ["pointer", "fixed", "attention", "coordinates"]


def log_probs(model, x, lengths, y):
    """Sum of the log-probabilities of each output, under teacher forcing."""
    logits, slots = model(x, lengths, y), model.slots(y)
    gained = logits.log_softmax(2).gather(2, slots.clamp(min=0)[..., None])[..., 0]
    return gained.masked_fill(slots < 0, 0).sum(1)


def weights(layer):
    return [getattr(layer.layers, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


@pytest.mark.parametrize("end_token", [True, False])
def test_pointer_network_equals_the_loop_and_so_do_its_gradients(end_token):
    model, x = build("pointer", end_token=end_token), points()
    parts = {
        "encoder": weights(model.encoder), "decoder": weights(model.decoder), "start": model.feedback.start,
        "end": model.end, "w1": model.attention.key.weight, "w2": model.attention.query.weight,
        "v": model.attention.weight,
    }  # fmt: skip
    found = -log_probs(model, x, LENGTHS, TARGETS)
    wanted = []
    for row, size in enumerate(LENGTHS.tolist()):
        target = [place for place in TARGETS[row].tolist() if place >= 0]
        wanted.append(sum(reference.pointer_network(parts, x[row, :size], target, end_token)))
    assert torch.allclose(found, torch.stack(wanted), atol=1e-10)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == len(list(model.parameters())) - (not end_token)
    ours, theirs = (torch.autograd.grad(sum(terms), trained) for terms in (found, wanted))
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(ours, theirs, strict=True))
    assert all((gradient != 0).any() for gradient in ours)


def test_attention_equals_the_loop_and_so_do_its_gradients():
    model, x = build("attention"), points()
    parts = {
        "encoder": weights(model.encoder), "decoder": weights(model.decoder), "head": model.head.weight,
        "bias": model.head.bias, "embedding": model.feedback.embedding.weight, "w1": model.attention.key.weight,
        "w2": model.attention.query.weight, "v": model.attention.weight,
    }  # fmt: skip
    found = -log_probs(model, x, LENGTHS, TARGETS)
    wanted = []
    for row, size in enumerate(LENGTHS.tolist()):
        target = [place for place in TARGETS[row].tolist() if place >= 0]
        wanted.append(sum(reference.attention_network(parts, x[row, :size], target)))
    assert torch.allclose(found, torch.stack(wanted), atol=1e-10)
    ours, theirs = (torch.autograd.grad(sum(terms), list(model.parameters())) for terms in (found, wanted))
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", ["pointer", "fixed", "attention"])
def test_padding_changes_nothing(kind):
    model, x = build(kind), points()
    together, (written, gained) = model(x, LENGTHS, TARGETS), model.decode(x, LENGTHS, beam_size=3)
    for row, size in enumerate(LENGTHS.tolist()):
        y = TARGETS[row : row + 1, : int((TARGETS[row] >= 0).sum())]
        alone = model(x[row : row + 1, :size], None, y)
        slots = alone.shape[2]
        assert torch.allclose(together[row, : y.shape[1] + 1, :slots], alone[0], atol=1e-10)
        own, own_gain = model.decode(x[row : row + 1, :size], None, beam_size=3, max_steps=10)
        assert [k for k in written[row].tolist() if k >= 0] == [k for k in own[0].tolist() if k >= 0]
        assert torch.allclose(gained[row], own_gain[0], atol=1e-10)


def test_the_order_of_the_input_is_read():
    model, x = build("pointer"), points(torch.tensor([5]))
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = torch.tensor([[order.tolist().index(k) for k in TARGETS[0].tolist()]])
    assert not torch.allclose(log_probs(model, x, None, TARGETS[:1]), log_probs(model, x[:, order], None, moved))


def test_one_network_for_all_sizes():
    model = build("pointer")
    count = sum(parameter.numel() for parameter in model.parameters())
    for size in (3, 5, 500):
        x = torch.rand(1, size, 2, dtype=torch.float64)
        assert model(x, None, torch.tensor([[size - 1, 0]])).shape == (1, 3, size + 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end_token", [True, False])
def test_decoding_agrees_with_teacher_forcing(kind, end_token):
    """A beam of 1 is greedy, step by step; the log-probability is that of the output under teacher forcing."""
    model, x = build(kind, end_token=end_token), torch.rand(6, 5, 2, dtype=torch.float64)
    for beam in (1, 4):
        written, gained = model.decode(x, None, beam, max_steps=7)
        y = written if end_token else written[:, :5]
        assert torch.allclose(log_probs(model, x, None, y), gained, atol=1e-10)
        if beam == 1:
            for row in range(6):
                prefix = []
                while len(prefix) < (7 if end_token else 5):
                    given = torch.tensor([[*prefix, 0]])[:, : len(prefix) + (not end_token)]
                    logits = model(x[row : row + 1], None, given if given.shape[1] else torch.tensor([[-100]]))
                    slot = int(logits[0, len(prefix)].argmax())
                    if slot == 0:
                        break
                    prefix.append(slot - 1)
                assert [k for k in y[row].tolist() if k >= 0] == prefix


@pytest.mark.parametrize("kind", ["pointer", "attention"])
def test_a_wide_beam_finds_the_best_output_of_all(kind):
    model, x = build(kind, 3), torch.rand(3, 3, 2, dtype=torch.float64)
    written, gained = model.decode(x, None, beam_size=4**4, max_steps=3)
    greedy = model.decode(x, None, max_steps=3)[1]
    assert (gained >= greedy - 1e-12).all()
    outputs = [list(out) for size in range(4) for out in itertools.product(range(3), repeat=size)]
    padded = torch.tensor([out + [-100] * (3 - len(out)) for out in outputs])
    for row in range(3):
        everything = log_probs(model, x[row : row + 1].expand(len(padded), -1, -1), None, padded)
        best = int(everything.argmax())
        assert torch.allclose(gained[row], everything[best], atol=1e-10)
        assert [k for k in written[row].tolist() if k >= 0] == outputs[best]


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("kind", ["pointer", "attention"])
def test_visited_positions_are_never_written_again(kind, beam):
    x, lengths = points(), LENGTHS if kind == "pointer" else torch.full((3,), 5)
    written, gained = build(kind, end_token=False).decode(x, lengths, beam, mask="visited")
    for row, size in enumerate(lengths.tolist()):
        assert sorted(k for k in written[row].tolist() if k >= 0) == list(range(size))
    assert torch.isfinite(gained).all()
    written, _ = build(kind).decode(x, lengths, beam, mask="visited")
    for row in written.tolist():
        known = [k for k in row if k >= 0]
        assert len(set(known)) == len(known)


def test_a_constraint_of_ones_own():
    def ascending(written):
        last = written[:, -1:] if written.shape[1] else torch.full((len(written), 1), -1)
        return torch.arange(5) > last

    written, _ = build("pointer").decode(points(torch.tensor([5, 5])), None, 2, mask=ascending)
    for row in written.tolist():
        known = [k for k in row if k >= 0]
        assert known == sorted(set(known))


@pytest.mark.parametrize("kind", KINDS)
def test_record_rebuilds_the_network(kind):
    model = build(kind)
    spec = model._record
    options = {
        name: import_path(value["class_path"])(**value["init_args"]) if isinstance(value, dict) else value
        for name, value in spec["init_args"].items()
    }
    again = import_path(spec["class_path"])(**options).double()
    again.load_state_dict(model.state_dict())
    x = points()
    assert torch.equal(again(x, LENGTHS, TARGETS), model(x, LENGTHS, TARGETS))
    assert record(type(model), (), options) is not None


def test_tokens_as_input():
    model = AttentionEncoderDecoder(4, vocab_size=7, hidden_channels=5)
    ids = torch.randint(7, (2, 6))
    assert model(ids, torch.tensor([6, 2]), torch.tensor([[3, 0], [1, -100]])).shape == (2, 3, 5)
    assert model.decode(ids, torch.tensor([6, 2]), beam_size=2)[0].max() < 4
    before = model.embedding.weight.clone()
    model.reset_parameters()
    assert not torch.equal(model.embedding.weight, before)


def test_refused():
    with pytest.raises(ValueError, match="hidden_channels 0"):
        PointerNet(2, 0)
    with pytest.raises(ValueError, match="in_channels is None and vocab_size None"):
        EncoderDecoder(3)
    with pytest.raises(ValueError, match="num_symbols is 0"):
        AttentionEncoderDecoder(0, in_channels=2)
    model = build("pointer")
    x = torch.rand(2, 4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="y is missing"):
        model(x)
    with pytest.raises(ValueError, match=r"y is torch.int64 \(3, 1\)"):
        model(x, None, torch.zeros(3, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\(2, 4, 3\)"):
        model.decode(torch.rand(2, 4, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="beam_size is 0"):
        model.decode(x, None, 0)
    with pytest.raises(ValueError, match="max_steps is 0"):
        model.decode(x, None, max_steps=0)
    with pytest.raises(ValueError, match="mask is 'tour'"):
        model.decode(x, None, mask="tour")
    with pytest.raises(ValueError, match="float32"):
        AttentionEncoderDecoder(4, vocab_size=7, hidden_channels=5).encode(torch.rand(2, 3))


def test_more_beams_than_outputs_that_a_function_allows():
    """Beams that are not allowed count nothing, although the function leaves no slot open to them."""

    def once(written):
        counts = torch.nn.functional.one_hot(written.clamp(min=0), 3).sum(1)
        return (counts == 0) & (written >= 0).all(1, keepdim=True)

    torch.manual_seed(0)
    model, x = PointerNet(2, 8, end_token=False).eval(), torch.rand(2, 3, 2)
    wanted, likely = model.decode(x, beam_size=6, mask=once)
    found, log_prob = model.decode(x, beam_size=10, mask=once)
    assert torch.equal(found, wanted)
    assert torch.allclose(log_prob, likely)
