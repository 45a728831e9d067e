"""Transformers: continued texts, prefixes, free decoding, hidden states, copies, refusals."""

import pytest
import torch

import graphseq
from graphseq.core import make
from graphseq.models import (
    RecurrentLanguageModel,
    SequenceClassifier,
    TransformerClassifier,
    TransformerEncoderDecoder,
    TransformerLanguageModel,
    generate_tokens,
)
from graphseq.nn import (
    BlockStack,
    CausalAttention,
    CrossAttention,
    CrossBlock,
    GatedLinearAttention,
    LearnedPositions,
    MixLNStack,
    SelfAttention,
    SequenceBlock,
)

DIM = 8


def decoder(mixer=None, **options):
    return BlockStack([SequenceBlock(CausalAttention(DIM, 2) if mixer is None else mixer)], 2, **options)


def encoder(**options):
    return BlockStack([SequenceBlock(SelfAttention(DIM, 2))], 2, **options)


def language(**options):
    return TransformerLanguageModel(11, decoder(**options)).double().eval()


def writer(end_token=True, **options):
    cross = BlockStack([CrossBlock(CausalAttention(DIM, 2), CrossAttention(DIM, 2))], 2)
    return TransformerEncoderDecoder(5, encoder(**options), cross, vocab_size=9, end_token=end_token).double().eval()


def test_language_model_is_that_of_recurrent_layers():
    """The same blocks in the class that wraps any causal layer give the same logits."""
    ours = language()
    other = RecurrentLanguageModel(11, DIM, recurrent=decoder(), tie_weights=True).double().eval()
    other.recurrent.load_state_dict(ours.layers.state_dict())
    with torch.no_grad():
        other.embedding.weight.copy_(ours.embedding.weight)
        other.head.bias.zero_()
    ids = torch.randint(11, (2, 6))
    torch.testing.assert_close(ours(ids), other(ids))
    assert ours.head.weight is ours.embedding.weight


@pytest.mark.parametrize("mixer", [None, GatedLinearAttention(DIM, 2)], ids=["attention", "linear attention"])
def test_text_is_continued_from_the_state(mixer):
    model = language(mixer=mixer, positions=LearnedPositions(DIM, 20))
    prompt = torch.randint(11, (2, 3))
    written = generate_tokens(model, prompt, 6, temperature=0.0)
    ids = prompt
    for _ in range(6):
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], 1)
    assert torch.equal(written, ids[:, 3:])


def test_prefix_sees_itself_and_nothing_after_it():
    model = language()
    ids = torch.randint(11, (1, 6))
    table = model.embedding(ids).detach().requires_grad_()
    model.embedding.forward = lambda ids: table
    logits, _ = model.forward_with_state(ids, prefix=torch.tensor([3]))
    reads = [torch.autograd.grad(logits[0, t].sum(), table, retain_graph=True)[0][0].abs().sum(1) > 0 for t in range(6)]
    expected = [[s <= t or s < 3 for s in range(6)] for t in range(6)]
    assert torch.stack(reads).tolist() == expected
    assert torch.equal(model(ids, torch.tensor([3])), logits)


def test_hidden_states():
    model = language()
    ids = torch.randint(11, (2, 4))
    hidden = model.hidden_states(ids)
    assert len(hidden) == 3
    assert torch.equal(model.head(model.layers.norm(hidden[-1])), model(ids))
    classifier = TransformerClassifier(3, encoder(), vocab_size=11)
    assert [tuple(h.shape) for h in classifier.hidden_states(ids)] == [(2, 4, DIM)] * 3


@pytest.mark.parametrize("end_token", [True, False])
def test_hidden_states_of_an_encoder_and_of_a_decoder(end_token):
    model = writer(end_token)
    x, lengths, y = torch.randint(9, (2, 4)), torch.tensor([4, 2]), torch.tensor([[0, 3, 1, 4], [2, 2, -100, -100]])
    hidden = model.hidden_states(x, lengths)
    assert [tuple(h.shape) for h in hidden] == [(2, 4, DIM)] * 3
    torch.testing.assert_close(hidden[0][0], model.input(x)[0])
    torch.testing.assert_close(model.encoder.norm(hidden[-1])[1, :2], model.encode(x, lengths).keys[1, :2])
    written = model.decoder_states(x, lengths, y)
    assert [tuple(h.shape) for h in written] == [(2, 4 + end_token, DIM)] * 3
    logits = model.head(model.decoder.norm(written[-1]))
    torch.testing.assert_close(logits[..., 1:], model(x, lengths, y)[..., 1:])


def test_gradients_fall_with_depth_and_less_so_where_the_first_blocks_are_post_norm():
    """At the start, before training; the record of effect.mixln has them after it."""
    ids, norms = torch.randint(17, (8, 16)), {}
    for share in (0.0, 0.25):
        torch.manual_seed(0)
        model = TransformerLanguageModel(17, MixLNStack(CausalAttention(32, 2), 12, share))
        torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        squares = [sum(p.grad.square().sum() for p in block.parameters()) for block in model.layers.blocks]
        norms[share] = torch.stack(squares).sqrt()
    pre, mixed = norms.values()
    assert float(pre[-3:].mean() / pre[:3].mean()) < 0.6
    assert float(mixed.std() / mixed.mean()) < 0.5 * float(pre.std() / pre.mean())


@pytest.mark.parametrize("pool", ["mean", "first", "last"])
def test_classifier_reads_no_padding(pool):
    model = TransformerClassifier(3, encoder(), in_channels=2, pool=pool).double()
    x = torch.randn(2, 5, 2, dtype=torch.float64)
    moved = x.clone()
    moved[1, 3:] = torch.nan
    y = model(moved, torch.tensor([5, 3]))
    torch.testing.assert_close(y[1:], model(x[1:, :3]))
    torch.testing.assert_close(y[:1], model(x[:1]))


def test_classifier_is_that_of_recurrent_layers():
    ours = TransformerClassifier(3, encoder(), vocab_size=11).double()
    other = SequenceClassifier(3, vocab_size=11, hidden_channels=DIM, recurrent=encoder(), pool="mean").double()
    other.recurrent.load_state_dict(ours.layers.state_dict())
    other.embedding.load_state_dict(ours.input.state_dict())
    other.head.load_state_dict(ours.head.state_dict())
    x, lengths = torch.randint(11, (2, 5)), torch.tensor([5, 2])
    torch.testing.assert_close(ours(x, lengths), other(x, lengths))


@pytest.mark.parametrize("end_token", [True, False])
def test_decoding_step_by_step_equals_training(end_token):
    model = writer(end_token)
    x, lengths = torch.randint(9, (3, 6)), torch.tensor([6, 2, 4])
    symbols, log_prob = model.decode(x, lengths, max_steps=7)
    logits = model(x, lengths, symbols)
    slots = model.slots(symbols)
    scores = logits.log_softmax(-1)
    known = slots != -100
    # each symbol is the likeliest one given those before it
    free = scores if not end_token else scores[:, :7]
    best = free.argmax(-1)
    assert (best[known[:, : free.shape[1]]] == slots[:, : free.shape[1]][known[:, : free.shape[1]]]).all()
    picked = scores.gather(2, slots.clamp(min=0)[..., None])[..., 0]
    ended = (slots[:, :7] == 0).any(1) if end_token else torch.ones(3, dtype=torch.bool)
    total = torch.where(known, picked, 0).sum(1)
    torch.testing.assert_close(log_prob[ended], total[ended].to(log_prob))


def test_outputs_that_are_all_empty():
    model, x = writer(), torch.tensor([[1, 2], [0, 1]])
    empty = torch.zeros(2, 0, dtype=torch.int64)
    padded = torch.full((2, 1), -100)
    torch.testing.assert_close(model(x, None, empty)[:, 0], model(x, None, padded)[:, 0])
    assert model.slots(empty).tolist() == [[0], [0]]


def test_beam_search_keeps_states_apart():
    model = writer(end_token=False)
    x = torch.randint(9, (2, 3))
    symbols, log_prob = model.decode(x, beam_size=125)  # all of 5 ** 3 outputs
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)
    for row in range(2):
        scores = model(x[row].expand(125, -1), None, every).log_softmax(-1)
        total = scores.gather(2, (every + 1)[..., None])[..., 0].sum(1)
        assert torch.equal(symbols[row], every[total.argmax()])
        assert float(log_prob[row]) == pytest.approx(float(total.max()))


def test_padding_of_inputs_changes_nothing():
    model = writer()
    x, y = torch.randint(9, (2, 6)), torch.tensor([[1, 4], [0, -100]])
    logits = model(x, torch.tensor([6, 2]), y)
    torch.testing.assert_close(logits[1:, :2], model(x[1:, :2], None, y[1:, :1]))


@pytest.mark.parametrize("build", [language, writer, lambda: TransformerClassifier(3, encoder(), in_channels=2)])
def test_saved_and_reset(build, tmp_path):
    model = build()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    again = build()
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())
    model.reset_parameters()
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    constant = {name for name in before if "norm" in name}
    assert set(changed) == set(before) - constant
    assert graphseq.core.to_spec(model)["class_path"].startswith("graphseq.models.Transformer")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TransformerLanguageModel(0, decoder()), ValueError, "vocab_size is 0"),
        (lambda: TransformerLanguageModel(9.0, decoder()), ValueError, "vocab_size is 9.0"),
        (lambda: TransformerLanguageModel(9, decoder())(torch.ones(1, 2) > 0), ValueError, "ids is torch.bool"),
        (lambda: TransformerLanguageModel(9, decoder())(torch.tensor([[1]]), 1), ValueError, "prefix is a int"),
        (lambda: TransformerLanguageModel(9, decoder(), dropout=1.0), ValueError, "dropout is 1"),
        (lambda: TransformerLanguageModel(9, encoder()), ValueError, "layers are bidirectional"),
        (lambda: TransformerLanguageModel(9, make(torch.nn.Linear, 8, 8)), TypeError, "layers is a Linear"),
        (lambda: TransformerLanguageModel(9, decoder())(torch.tensor([[9]])), ValueError, "ids is from 9 to 9"),
        (lambda: TransformerClassifier(3, encoder()), ValueError, "in_channels is None and vocab_size None"),
        (lambda: TransformerClassifier(3, encoder(), in_channels=0), ValueError, "in_channels is 0"),
        (lambda: TransformerClassifier(0, encoder(), vocab_size=2), ValueError, "out_channels is 0"),
        (lambda: TransformerClassifier(3, encoder(), vocab_size=2, pool="max"), ValueError, "pool is 'max'"),
        (
            lambda: TransformerClassifier(3, encoder(), in_channels=2)(torch.zeros(1, 2, 3)),
            ValueError,
            r"torch.float32 \(1, 2, 3\)",
        ),
        (lambda: TransformerEncoderDecoder(5, encoder(), decoder(), vocab_size=9), TypeError, "block 0 of decoder"),
        (lambda: TransformerEncoderDecoder(0, encoder(), decoder(), vocab_size=9), ValueError, "num_symbols is 0"),
        (
            lambda: TransformerEncoderDecoder(
                5, encoder(), BlockStack([CrossBlock(CausalAttention(8), CrossAttention(8, memory_dim=4))]), 2
            ),
            ValueError,
            "attends to 4 features",
        ),
        (lambda: writer()(torch.tensor([[1]])), ValueError, "y is missing"),
        (lambda: writer()(torch.tensor([[1]]), None, torch.tensor([[99]])), ValueError, "y reaches 99"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
