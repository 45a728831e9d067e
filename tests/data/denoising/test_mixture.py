"""Mixture of denoisers and its data module: shares, layouts, random numbers, resumption, refusals."""

import functools
import itertools
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from graphseq.core import DataError, PrefixBatch, TokenBatch, make
from graphseq.data import (
    DenoisingDataModule,
    MixtureOfDenoisers,
    PrefixDenoiser,
    SpanDenoiser,
    SyntheticTextDataModule,
    TensorStore,
    restore_spans,
    ul2_denoisers,
)
from graphseq.models import TransformerEncoderDecoder, TransformerLanguageModel
from graphseq.nn import BlockStack, CausalAttention, CrossAttention, CrossBlock, SelfAttention, SequenceBlock
from graphseq.tasks import LanguageModeling, SequenceToSequence
from tests.reference import denoising
from tests.reference import sequences as reference
from tests.reliability.runs import trainer

LENGTHS = torch.tensor([64, 2, 17, 33] * 50)
IDS = torch.randint(40, (200, 64)).masked_fill(torch.arange(64) >= LENGTHS[:, None], 0)
BATCH = TokenBatch(IDS, LENGTHS)


def halves(mixture, batch, row):
    """Mode, input and target of a row as lists."""
    if isinstance(batch, PrefixBatch):
        ids = batch.ids[row, : batch.lengths[row]].tolist()
        start = int(batch.prefix[row])
        assert ids[start - 1] == mixture.separator
        return ids[0], ids[1 : start - 1], ids[start:]
    target = batch.y[row]
    return (
        int(batch.x[row, 0]),
        batch.x[row, 1 : batch.lengths[row]].tolist(),
        target[target != -100].tolist(),
    )


@pytest.mark.parametrize("layout", ["pairs", "joined"])
def test_both_halves_give_the_text_back(layout):
    mixture = MixtureOfDenoisers(40, layout=layout)
    batch = mixture(BATCH, number=3)
    chosen = mixture.draw(200, 3)
    for row, length in enumerate(LENGTHS.tolist()):
        mode, given, written = halves(mixture, batch, row)
        denoiser = mixture.denoisers[int(chosen[row])]
        assert mode == mixture.modes[denoiser.mode]
        assert not {mode, mixture.separator} & set(written)
        assert max(given + written) < mixture.num_tokens
        restored = restore_spans(given, written, mixture.first_sentinel, mixture.num_sentinels)
        assert restored == IDS[row, :length].tolist()
        if isinstance(denoiser, PrefixDenoiser):
            assert given[:-1] == IDS[row, : len(given) - 1].tolist()
            assert sum(token >= mixture.first_sentinel for token in given) == 1
            assert 1 <= length - len(given) + 1 <= max(1, length // 2)
        else:
            noise, spans = denoising.counts(length, denoiser.rate, denoiser.mean_span)
            assert (len(given), len(written)) == (length - noise + spans, noise + spans + 1)


def test_denoisers_are_those_of_the_paper():
    spans = [(d.mode, d.mean_span, d.rate) for d in ul2_denoisers() if isinstance(d, SpanDenoiser)]
    assert spans == [("R", 3, 0.15), ("R", 8, 0.15), ("X", 3, 0.5), ("X", 8, 0.5), ("X", 64, 0.15), ("X", 64, 0.5)]
    (prefix,) = (d for d in ul2_denoisers() if isinstance(d, PrefixDenoiser))
    assert (prefix.mode, prefix.max_share) == ("S", 0.5)  # a quarter in the mean
    assert {d.weight for d in ul2_denoisers((2, 1, 4))} == {1.0}


def test_long_and_short_sequences_of_a_batch():
    """Each length of the specification, by each denoiser, in one batch."""
    lengths = torch.tensor([2048, 512, 64, 16, 7, 3, 2])
    ids = torch.randint(40, (7, 2048))
    for denoiser in ul2_denoisers():
        mixture = MixtureOfDenoisers(40, [denoiser], num_sentinels=342)
        batch = mixture(TokenBatch(ids, lengths), 0)
        for row, length in enumerate(lengths.tolist()):
            _, given, written = halves(mixture, batch, row)
            restored = restore_spans(given, written, mixture.first_sentinel, mixture.num_sentinels)
            assert restored == ids[row, :length].tolist()
    with pytest.raises(DataError, match="num_sentinels is 341; sequences of 2048 tokens need 342"):
        MixtureOfDenoisers(40, num_sentinels=341)(TokenBatch(ids, lengths), 0)


def test_shares_of_the_denoisers():
    mixture = MixtureOfDenoisers(40)
    counted = torch.bincount(mixture.draw(20_000, 0), minlength=7)
    weights = torch.tensor([denoiser.weight for denoiser in ul2_denoisers()])
    assert chisquare(counted, 20_000 * weights / weights.sum()).pvalue > 1e-3
    assert {denoiser.mode for denoiser in ul2_denoisers()} == {"R", "S", "X"}


def test_share_of_what_a_prefix_denoiser_takes():
    mixture = MixtureOfDenoisers(40, [PrefixDenoiser()])
    batch = TokenBatch(torch.zeros(4000, 64, dtype=torch.int64), torch.full((4000,), 64))
    taken = (mixture(batch, 0).y != -100).sum(1) - 2  # two sentinels
    assert taken.min() == 1
    assert taken.max() == 32
    assert float(taken.double().mean()) / 64 == pytest.approx(0.2578, abs=0.02)  # the mean of 1..32 is 16.5


def test_random_numbers_are_those_of_the_batch():
    mixture, other = MixtureOfDenoisers(40), MixtureOfDenoisers(40, seed=1)
    state = torch.get_rng_state()
    first = mixture(BATCH, number=0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(mixture(BATCH, number=0).x, first.x)
    assert not torch.equal(mixture(BATCH, number=1).x, first.x)
    assert not torch.equal(other(BATCH, number=0).x, first.x)


def build(layout="pairs", **options):
    text = SyntheticTextDataModule(60, length=24)
    return DenoisingDataModule(text, layout=layout, batch_size=32, **options)


def network(layout, vocab_size):
    def stack(*parts):
        return BlockStack([*parts])

    if layout == "joined":
        return TransformerLanguageModel(vocab_size, stack(SequenceBlock(CausalAttention(8, 2))))
    cross = CrossBlock(CausalAttention(8, 2), CrossAttention(8, 2))
    return TransformerEncoderDecoder(
        vocab_size, stack(SequenceBlock(SelfAttention(8, 2))), stack(cross), None, vocab_size
    )


@pytest.mark.parametrize("layout", ["pairs", "joined"])
def test_a_stopped_run_goes_on_as_one_that_was_not(layout, tmp_path):
    adam = functools.partial(torch.optim.Adam, lr=1e-2)
    kind = SequenceToSequence if layout == "pairs" else LanguageModeling

    def new():
        torch.manual_seed(0)
        data = build(layout)
        return kind(network(layout, data.vocab_size), data.vocab_size, optimizer=adam), data

    task, data = new()
    trainer(max_epochs=2).fit(task, data)
    half, other = new()
    first = trainer(max_epochs=1)
    first.fit(half, other)
    first.save_checkpoint(tmp_path / "last.ckpt")
    again, other = new()
    trainer(max_epochs=2).fit(again, other, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for name, value in task.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    scores = [trainer().validate(task, data, verbose=False)[0] for _ in range(2)]
    assert scores[0] == scores[1]  # evaluations have the same spans each time


def test_epochs_and_evaluations():
    data = build()
    first, second = list(data.batches("train")), list(data.batches("train"))
    assert not torch.equal(first[0].x, second[0].x)
    assert torch.equal(next(data.batches("val")).x, next(data.batches("val")).x)
    probe = build(eval_denoisers=[PrefixDenoiser()])
    assert {int(mode) for batch in probe.batches("val") for mode in batch.x[:, 0]} == {probe.mixture("val").modes["S"]}
    assert len({int(mode) for batch in probe.batches("train") for mode in batch.x[:, 0]}) == 3


def test_processes_corrupt_their_rows_in_ways_of_their_own():
    batches = []
    for world_size, rank in ((1, 0), (2, 0), (2, 1)):
        data = build()
        data.trainer = SimpleNamespace(world_size=world_size, global_rank=rank)
        short = TokenBatch(IDS % data.text.vocab_size, LENGTHS)
        batches.append([data.transformed(short, "train").x for _ in range(2)])
    (alone, after), first, second = batches
    assert torch.equal(alone, data.mixture()(short, 0).x)
    assert torch.equal(after, data.mixture()(short, 1).x)
    assert not any(torch.equal(one, two) for one, two in itertools.combinations([*first, *second], 2))


def test_collates_for_a_data_loader_alike_in_any_number_of_processes():
    rows = [row[:length] for row, length in zip(IDS[:8], LENGTHS[:8].tolist(), strict=True)]
    mixture = MixtureOfDenoisers(40)
    torch.manual_seed(1)
    here = list(DataLoader(rows, 4, collate_fn=mixture))
    torch.manual_seed(2)
    there = list(DataLoader(rows, 4, collate_fn=mixture, num_workers=2))
    assert all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in zip(here, there, strict=True))
    _, given, written = halves(mixture, here[1], 2)
    assert restore_spans(given, written, mixture.first_sentinel, mixture.num_sentinels) == rows[6].tolist()
    mixture.set_epoch(1)
    again = list(DataLoader(rows, 4, collate_fn=mixture))
    assert not any(torch.equal(a.x, b.x) for a, b in zip(again, here, strict=True))


def test_groups_without_weight_and_other_integers():
    assert {denoiser.mode for denoiser in ul2_denoisers((1.0, 0.0, 0.0))} == {"R"}
    small = MixtureOfDenoisers(40)(TokenBatch(IDS.int(), LENGTHS), 0)
    assert torch.equal(small.x.long(), MixtureOfDenoisers(40)(BATCH, 0).x)


def test_loss_of_a_prefix_counts_what_is_to_be_written():
    task = LanguageModeling(network("joined", 9).double(), 9)
    batch = PrefixBatch(torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]), torch.tensor([5, 3]), torch.tensor([3, 2]))
    terms = []
    for row, length, prefix in ((0, 5, 3), (1, 3, 2)):
        ids = batch.ids[row : row + 1, : length - 1]
        logits = task.model(ids, torch.tensor([prefix]))[0]
        terms += reference.negative_log_likelihoods(
            logits[prefix - 1 :].tolist(), batch.ids[row, prefix:length].tolist()
        )
    step = task.step(batch)
    assert int(step.size) == len(terms) == 3
    assert float(step.loss.detach()) == pytest.approx(sum(terms) / 3, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SpanDenoiser(0.5, 0.1), ValueError, "mean_span is 0.5"),
        (lambda: SpanDenoiser(3, 1.0), ValueError, "rate is 1.0"),
        (lambda: SpanDenoiser(3, 0.5, "Q"), ValueError, "mode is 'Q'"),
        (lambda: SpanDenoiser(3, 0.5, weight=0), ValueError, "weight is 0"),
        (lambda: PrefixDenoiser(1.0), ValueError, "max_share is 1.0"),
        (lambda: MixtureOfDenoisers(0), ValueError, "vocab_size is 0"),
        (lambda: MixtureOfDenoisers(9, []), ValueError, "denoisers is empty"),
        (lambda: MixtureOfDenoisers(9, "ul2"), TypeError, "denoisers holds 'u'"),
        (lambda: ul2_denoisers((1.0, 2.0)), ValueError, r"groups is \(1.0, 2.0\)"),
        (lambda: MixtureOfDenoisers(39)(BATCH, 0), DataError, "from 0 to 39; with vocab_size=39"),
        (lambda: MixtureOfDenoisers(40)(BATCH, -1), ValueError, "number is -1"),
        (lambda: MixtureOfDenoisers(40).set_epoch(-1), ValueError, "epoch is -1"),
        (lambda: MixtureOfDenoisers(40)(IDS, 0), DataError, r"the batch is \(200, 64\)"),
        (lambda: MixtureOfDenoisers(40)([]), DataError, "the batch is empty"),
        (lambda: MixtureOfDenoisers(40)(TokenBatch(IDS.float(), LENGTHS), 0), DataError, "ids is torch.float32"),
        (lambda: MixtureOfDenoisers(40)(TokenBatch(IDS, LENGTHS + 1), 0), ValueError, "lengths range from 3 to 65"),
        (lambda: MixtureOfDenoisers(9, layout="both"), ValueError, "layout is 'both'"),
        (lambda: MixtureOfDenoisers(9, num_sentinels=1), ValueError, "num_sentinels is 1"),
        (lambda: MixtureOfDenoisers(40, num_sentinels=5)(BATCH, 0), DataError, "64 tokens need 12"),
        (
            lambda: MixtureOfDenoisers(40)(TokenBatch(IDS[:1, :1], torch.tensor([1])), 0),
            DataError,
            "a sequence has 1 tokens",
        ),
        (lambda: DenoisingDataModule(make(TensorStore, IDS)), TypeError, "text is a TensorStore"),
        (
            lambda: DenoisingDataModule(SyntheticTextDataModule(99, order="streams")),
            ValueError,
            "order 'streams'",
        ),
        (lambda: build(num_sentinels=1), ValueError, "num_sentinels is 1"),
        (lambda: build(num_sentinels=3).load(), DataError, "25 tokens need 5"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
