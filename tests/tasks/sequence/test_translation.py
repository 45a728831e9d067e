"""The sequence-to-sequence task: loss of the loop, refusals, and a network that learns, is saved and predicts."""

import functools

import pytest
import torch

import graphseq
from graphseq.core import DataError, SequenceBatch
from graphseq.data import StoreDataModule
from graphseq.data.sequences.pairs import SequencePairStore
from graphseq.models import EncoderDecoder, SequenceTagger, TransformerEncoderDecoder
from graphseq.nn import BlockStack, CausalAttention, CrossAttention, CrossBlock, SelfAttention, SequenceBlock
from graphseq.tasks import SequenceToSequence
from tests.reference import sequences as reference
from tests.reliability.runs import trainer

X, LENGTHS = torch.randint(1, 5, (2, 4)), torch.tensor([4, 2])
Y = torch.tensor([[2, 0, 3], [1, -100, -100]])


def network(symbols=4):
    encoder = BlockStack([SequenceBlock(SelfAttention(16, 2))])
    decoder = BlockStack([CrossBlock(CausalAttention(16, 2), CrossAttention(16, 2))])
    return TransformerEncoderDecoder(symbols, encoder, decoder, vocab_size=5)


def batch(**changes):
    return SequenceBatch(**{"x": X, "lengths": LENGTHS, "y": Y, **changes})


def test_loss_equals_the_loop():
    task = SequenceToSequence(network().double(), num_outputs=4)
    terms = []
    for row, size in enumerate(LENGTHS.tolist()):
        target = [symbol + 1 for symbol in Y[row].tolist() if symbol >= 0]
        logits = task.model(X[row : row + 1, :size], None, torch.tensor([[slot - 1 for slot in target]]))[0]
        terms += reference.negative_log_likelihoods(logits.tolist(), [*target, 0])
    step = task.step(batch(), "train")
    assert int(step.size) == len(terms) == 6
    assert float(step.loss.detach()) == pytest.approx(sum(terms) / len(terms), abs=1e-10)


class Reversed(StoreDataModule):
    """Words of one to three letters, and the same from the back."""

    def read(self):
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, 4, (400,), generator=generator)
        words = [torch.randint(4, (size,), generator=generator) for size in lengths.tolist()]
        ptr = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        store = SequencePairStore(torch.cat(words) + 1, ptr, torch.cat([word.flip(0) for word in words]), ptr)
        part = torch.arange(400)
        return store, {"train": part[:320], "val": part[320:360], "test": part[360:]}


def test_learns_is_saved_and_predicts(tmp_path):
    data = Reversed(32)
    adam = functools.partial(torch.optim.Adam, lr=1e-2)
    task = SequenceToSequence(network(), num_outputs=4, beam_size=2, max_length=4, optimizer=adam)
    fit = trainer(max_epochs=8)
    fit.fit(task, data)
    (logged,) = trainer().test(task, data, verbose=False)
    assert set(logged) == {"test/loss", "test/acc"}
    assert logged["test/acc"] > 0.5  # the share of the commonest word is under 0.1
    fit.save_checkpoint(tmp_path / "last.ckpt")
    loaded = graphseq.load(tmp_path / "last.ckpt")
    (again,) = trainer().test(loaded, data, verbose=False)
    assert again == logged
    rows = loaded.prediction_rows(batch(), loaded.predict_step(batch(), 0), "test")
    assert rows.columns["target"] == ["2 0 3", "1"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SequenceToSequence(SequenceTagger(3, vocab_size=4), 3), TypeError, "has no decode, slots"),
        (lambda: SequenceToSequence(network(), 0), ValueError, "num_outputs is 0"),
        (lambda: SequenceToSequence(network(), 4, max_length=0), ValueError, "max_length is 0"),
        (lambda: SequenceToSequence(network(), 4, beam_size=0), ValueError, "beam_size is 0"),
        (lambda: SequenceToSequence(network(), 4, mask="all"), ValueError, "mask is 'all'"),
        (
            lambda: SequenceToSequence(network(3), 4).step(batch(y=Y.clamp(max=2))),
            ValueError,
            "has 3 output symbols and num_outputs",
        ),
        (lambda: SequenceToSequence(network(), 4).step(batch(y=Y + 1)), DataError, r"y\[0\] holds 4"),
        (lambda: SequenceToSequence(network(), 4).step(batch(y=Y[0])), DataError, r"y is torch.int64 \(3,\)"),
        (lambda: SequenceToSequence(network(), 4).step(batch(y=None)), DataError, "y is missing"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_any_network_that_decodes_fits():
    task = SequenceToSequence(EncoderDecoder(4, vocab_size=5, hidden_channels=8), num_outputs=4)
    assert torch.isfinite(task.step(batch(), "val").loss)
