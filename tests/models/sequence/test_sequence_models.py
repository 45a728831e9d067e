import pytest
import torch
from torch import nn

from graphseq.core import SequenceBatch, apply_model, make
from graphseq.core.spec import import_path
from graphseq.models import (
    AttentionEncoderDecoder,
    RecurrentLanguageModel,
    ReGENN,
    SequenceClassifier,
    SequenceTagger,
    generate_tokens,
)
from graphseq.nn import Bidirectional, ClassicalLSTM, GraphSoftEvolution, LayerStack, RecurrentStack

LENGTHS = torch.tensor([7, 1, 4])


def padded(tokens):
    x = torch.randint(1, 9, (3, 7)) if tokens else torch.randn(3, 7, 2, dtype=torch.float64)
    for row, size in enumerate(LENGTHS.tolist()):
        x[row, size:] = 8 if tokens else 1e3
    return x


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pool", ["last", "mean"])
def test_classifier_of_one_is_that_of_a_batch(tokens, bidirectional, pool):
    sizes = {"vocab_size": 9} if tokens else {"in_channels": 2}
    model = SequenceClassifier(3, **sizes, hidden_channels=6, num_layers=2, bidirectional=bidirectional, pool=pool)
    model = model.double()
    x = padded(tokens)
    together = apply_model(model, SequenceBatch(x, LENGTHS, torch.zeros(3)))
    for row, size in enumerate(LENGTHS.tolist()):
        assert torch.allclose(together[row], model(x[row : row + 1, :size])[0], atol=1e-12)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_tagger_of_one_is_that_of_a_batch(bidirectional):
    model = SequenceTagger(3, in_channels=2, hidden_channels=6, bidirectional=bidirectional).double()
    x = padded(tokens=False)
    together = model(x, LENGTHS)
    assert together.shape == (3, 7, 3)
    for row, size in enumerate(LENGTHS.tolist()):
        assert torch.allclose(together[row, :size], model(x[row : row + 1, :size])[0], atol=1e-12)


def test_both_ends_are_read():
    """Of two directions the last output of the first and the first output of the second have read everything."""
    model = SequenceClassifier(2, in_channels=1, hidden_channels=4, bidirectional=True).double()
    x = torch.randn(1, 6, 1, dtype=torch.float64, requires_grad=True)
    encoded = model.encode(x)
    for half in (encoded[0, :4], encoded[0, 4:]):
        (gradient,) = torch.autograd.grad(half.sum(), x, retain_graph=True)
        assert (gradient != 0).all()


class Sums(nn.Module):
    """A sequence layer of the user's own."""

    def __init__(self, output_size: int = 4):
        super().__init__()
        self.output_size = output_size

    def forward(self, x, state=None, lengths=None):
        y = x.cumsum(1)[..., : self.output_size]
        return (y if state is None else y + state), y[:, -1:]


def test_own_layer():
    layer = make(Sums)
    model = SequenceClassifier(2, vocab_size=9, hidden_channels=4, recurrent=layer)
    assert model.head.in_features == 4
    x = torch.randint(9, (3, 7))
    expected = model.head(model.embedding(x).cumsum(1)[torch.arange(3), LENGTHS - 1])
    assert torch.allclose(model(x, LENGTHS), expected, atol=1e-6)
    with pytest.raises(TypeError, match="recurrent is a Linear .*output_size"):
        SequenceClassifier(2, in_channels=3, recurrent=make(nn.Linear, 3, 4))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("tie_weights", [False, True])
def test_language_model_is_causal_and_goes_on_by_state(cell, tie_weights):
    model = RecurrentLanguageModel(9, 5, 6, num_layers=2, cell=cell, tie_weights=tie_weights).double()
    ids = torch.randint(9, (2, 8))
    whole = model(ids)
    assert whole.shape == (2, 8, 9)
    changed = ids.clone()
    changed[:, 5:] = (ids[:, 5:] + 1) % 9
    assert torch.equal(model(changed)[:, :5], whole[:, :5])
    assert not torch.allclose(model(changed)[:, 5:], whole[:, 5:])
    first, state = model.forward_with_state(ids[:, :3])
    second, _ = model.forward_with_state(ids[:, 3:], state)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-12)
    assert (model.head.weight is model.embedding.weight) == tie_weights


def test_tied_weights_survive_reset_and_checkpoint():
    model = RecurrentLanguageModel(9, 5, 6, tie_weights=True)
    model.reset_parameters()
    assert model.head.weight is model.embedding.weight
    again = import_path(model._record["class_path"])(**model._record["init_args"])
    again.load_state_dict(model.state_dict())
    ids = torch.randint(9, (1, 4))
    assert torch.equal(again(ids), model(ids))


def test_generated_greedily_equals_the_loop_over_prefixes():
    model = RecurrentLanguageModel(9, 5, 6, num_layers=2).eval()
    nn.init.normal_(model.head.weight)
    ids = torch.tensor([[3, 1]])
    got = generate_tokens(model, ids, 12, temperature=0.0)
    for _ in range(12):
        ids = torch.cat([ids, model(ids)[:, -1].argmax(1, keepdim=True)], 1)
    assert got.tolist() == ids[:, 2:].tolist()
    one = generate_tokens(model, ids[:, :2], 12, temperature=0.7, top_k=1)
    assert torch.equal(one, got), "the likeliest of one is the likeliest"


def test_generation_is_a_function_of_the_seed():
    model = RecurrentLanguageModel(9).eval()
    prompt = torch.tensor([[3, 1]])
    draw = lambda seed, **options: generate_tokens(  # noqa: E731
        model, prompt, 60, generator=torch.Generator().manual_seed(seed), **options
    ).tolist()
    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    assert {token for row in draw(0, forbidden=torch.tensor([0, 4])) for token in row}.isdisjoint({0, 4})
    assert draw(0, top_k=100) == draw(0)


class Fixed(nn.Module):
    """A model whose logits are known; counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.read = []

    def forward_with_state(self, ids, state=None):
        self.read.append(ids.shape[1])
        return torch.tensor([0.0, 2.0, 1.0, 2.0]).expand(len(ids), ids.shape[1], 4), (state or 0) + 1


def test_draws_follow_temperature_and_top_k_and_read_each_token_once():
    model = Fixed()
    generate_tokens(model, torch.zeros(1, 5, dtype=torch.int64), 4)
    assert model.read == [5, 1, 1, 1]
    prompt = torch.zeros(20000, 1, dtype=torch.int64)
    share = lambda **options: generate_tokens(Fixed(), prompt, 1, **options).flatten().bincount(minlength=4) / 20000  # noqa: E731
    weights = torch.tensor([0.0, 2.0, 1.0, 2.0])
    # 20,000 draws: the standard deviation of a share is below 0.0036
    assert torch.allclose(share(), weights.softmax(0), atol=0.02)
    assert torch.allclose(share(temperature=0.5), (2 * weights).softmax(0), atol=0.02)
    assert torch.allclose(share(top_k=2), torch.tensor([0.0, 0.5, 0.0, 0.5]), atol=0.02)
    assert share(top_k=1)[1] == 1, "the first among equals"
    assert share(temperature=0.0)[1] == 1
    assert generate_tokens(Fixed(), prompt, 0).shape == (20000, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"length": -1}, "length is -1"),
        ({"prompt": torch.zeros(1, 0, dtype=torch.int64)}, "prompt"),
    ],
)
def test_generation_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        generate_tokens(Fixed(), **{"prompt": torch.zeros(1, 1, dtype=torch.int64), "length": 1, **options})


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (lambda: SequenceClassifier(2), "in_channels is None and vocab_size None"),
        (lambda: SequenceClassifier(2, 3, 4), "in_channels is 3 and vocab_size 4"),
        (lambda: SequenceClassifier(0, 3), "out_channels is 0"),
        (lambda: SequenceTagger(2, 0), "in_channels is 0"),
        (lambda: SequenceClassifier(2, 3, pool="max"), "pool is 'max'"),
        (lambda: RecurrentLanguageModel(0), "vocab_size is 0"),
        (lambda: RecurrentLanguageModel(3, dropout=2.0), "dropout is 2.0"),
        (lambda: RecurrentLanguageModel(3, 2, recurrent=RecurrentStack(2, 2, bidirectional=True)), "recurrent"),
        (lambda: RecurrentLanguageModel(3)(torch.ones(2, 3)), "ids"),
        (lambda: SequenceTagger(2, 3)(torch.ones(2, 3, 4)), r"\(2, 3, 4\)"),
        (lambda: SequenceTagger(2, vocab_size=3)(torch.ones(2, 3)), "token numbers"),
    ],
)
def test_refused(make_one, message):
    with pytest.raises(ValueError, match=message):
        make_one()


@pytest.mark.parametrize("ids", [[[0, 9]], [[-1, 2]]])
def test_tokens_outside_the_vocabulary(ids):
    networks = (SequenceTagger(3, vocab_size=9), RecurrentLanguageModel(9), AttentionEncoderDecoder(3, vocab_size=9))
    for network in networks:
        with pytest.raises(ValueError, match=r"from .* with vocab_size=9 token numbers must be in 0\.\.8"):
            network.encode(torch.tensor(ids)) if isinstance(network, AttentionEncoderDecoder) else network(
                torch.tensor(ids)
            )


def test_any_pair_of_directions_is_read_at_both_ends():
    layers = [ClassicalLSTM(2, 4), ClassicalLSTM(2, 4, peepholes=True)]
    model = SequenceClassifier(3, in_channels=2, recurrent=LayerStack([Bidirectional(*layers)])).double()
    x = torch.randn(1, 6, 2, dtype=torch.float64, requires_grad=True)
    encoded = model.encode(x)
    for half in (encoded[0, :4], encoded[0, 4:]):
        (gradient,) = torch.autograd.grad(half.sum(), x, retain_graph=True)
        assert (gradient != 0).all()
    with pytest.raises(ValueError, match="recurrent is bidirectional"):
        RecurrentLanguageModel(5, 2, recurrent=Bidirectional(*layers))


def test_sequences_without_steps_and_layers_that_are_not_built():
    ids = torch.tensor([[1, 2], [2, 1]])
    for pool in ("mean", "last"):
        with pytest.raises(ValueError, match="lengths range from 0 to 2"):
            SequenceClassifier(2, vocab_size=3, hidden_channels=4, pool=pool)(ids, torch.tensor([2, 0]))
    with pytest.raises(TypeError, match="recurrent is 'gru'"):
        SequenceClassifier(2, in_channels=3, recurrent="gru")
    with pytest.raises(TypeError, match="source is GraphSoftEvolution"):
        ReGENN(2, 4, 3, source=GraphSoftEvolution)


def test_a_language_model_keeps_the_weights_of_layers_that_it_is_given():
    for layer in (RecurrentStack(5, 6), LayerStack([RecurrentStack(5, 6), RecurrentStack(6, 6)])):
        before = [weight.clone() for weight in layer.parameters()]
        model = RecurrentLanguageModel(9, 5, recurrent=layer)
        assert all(map(torch.equal, before, layer.parameters()))
        model.reset_parameters()
        assert not any(map(torch.equal, before, layer.parameters()))
