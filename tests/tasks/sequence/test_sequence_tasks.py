import functools
import math

import pytest
import torch
from torch import nn

import graphseq
from graphseq.core import CheckpointError, DataError, SequenceBatch, TokenBatch, Vocabulary
from graphseq.data import CharacterDataModule, SyntheticSequencesDataModule, SyntheticTextDataModule, WordDataModule
from graphseq.models import RecurrentLanguageModel, SequenceClassifier, SequenceTagger
from graphseq.tasks import Classification, LanguageModeling, SequenceClassification, SequenceTagging
from tests.reference import sequences as reference
from tests.reliability.runs import trainer


def language(vocab_size=9, **options):
    return LanguageModeling(RecurrentLanguageModel(vocab_size, 5, 6, **options).double(), vocab_size)


def rows_of(logits, targets):
    return logits.flatten(0, -2).tolist(), targets.flatten().tolist()


class TestLanguageModeling:
    def test_loss_equals_the_loop(self):
        task = language()
        ids = torch.randint(1, 9, (3, 7))
        lengths = torch.tensor([7, 2, 5])
        terms = []
        for row, size in enumerate(lengths.tolist()):
            logits = task.model(ids[row : row + 1, : size - 1])
            terms += reference.negative_log_likelihoods(*rows_of(logits, ids[row, 1:size]))
        step = task.step(TokenBatch(ids, lengths), "train")
        assert int(step.size) == len(terms) == 11
        assert abs(float(step.loss) - sum(terms) / 11) < 1e-12

    def test_padding_never_counts(self):
        task = language()
        ids, lengths = torch.randint(1, 9, (3, 7)), torch.tensor([7, 1, 5])
        other = torch.where(TokenBatch(ids, lengths).mask, ids, (ids + 3) % 9)
        first, second = (task.step(TokenBatch(given, lengths), "train") for given in (ids, other))
        assert torch.equal(first.loss, second.loss)
        assert int(first.size) == 10
        gradients = [torch.autograd.grad(step.loss, list(task.parameters())) for step in (first, second)]
        assert all(torch.equal(left, right) for left, right in zip(*gradients, strict=True))

    def test_full_rows_as_a_tensor(self):
        task = language()
        ids = torch.randint(9, (2, 4))
        assert torch.equal(task.step(ids, "val").loss, task.step(TokenBatch(ids, torch.tensor([4, 4])), "val").loss)

    def test_perplexity_of_a_split_equals_the_loop(self):
        data = SyntheticTextDataModule(100, length=20, batch_size=16, eval_batch_size=7)
        task = LanguageModeling(RecurrentLanguageModel(data.vocab_size, 5, 6), data.num_outputs)
        (logged,) = trainer().validate(task, data, verbose=False)
        terms = []
        for batch in data.batches("val"):
            for row, size in zip(batch.ids, batch.lengths.tolist(), strict=True):
                logits = task.model(row[None, : size - 1]).double()
                terms += reference.negative_log_likelihoods(*rows_of(logits, row[1:size]))
        assert len(terms) == data._bounds["val"][1] - data._bounds["val"][0] - 1
        mean = sum(terms) / len(terms)
        assert logged["val/loss"] == pytest.approx(mean, rel=1e-5)
        assert logged["val/ppl"] == pytest.approx(math.exp(mean), rel=1e-5)
        assert logged["val/bpc"] == pytest.approx(mean / math.log(2), rel=1e-5)

    def test_bits_per_character_only_of_characters(self, tmp_path):
        (tmp_path / "words.txt").write_text("a b c d e " * 40)
        data = WordDataModule(tmp_path / "words.txt", length=4)
        task = LanguageModeling(RecurrentLanguageModel(data.vocab_size, 5, 6), data.vocab_size)
        (logged,) = trainer().validate(task, data, verbose=False)
        assert {"val/loss", "val/ppl"} == set(logged)

    def test_learns(self):
        data = SyntheticTextDataModule(300, length=32, batch_size=8)
        model = RecurrentLanguageModel(data.vocab_size, 8, 32)
        task = LanguageModeling(model, data.vocab_size, optimizer=functools.partial(torch.optim.Adam, lr=1e-2))
        before = trainer().validate(task, data, verbose=False)[0]["val/ppl"]
        trainer(max_epochs=3).fit(task, data)
        assert trainer().validate(task, data, verbose=False)[0]["val/ppl"] < 4 < 18 < before

    def test_checkpoint_brings_the_vocabulary_without_the_data(self, tmp_path):
        path = tmp_path / "text.txt"
        path.write_text("abcab " * 40)
        data = CharacterDataModule(path, length=8)
        task = LanguageModeling(RecurrentLanguageModel(data.vocab_size, 5, 6), data.vocab_size)
        run = trainer(max_epochs=1)
        run.fit(task, data)
        run.save_checkpoint(tmp_path / "a.ckpt")
        path.unlink()
        torch.load(tmp_path / "a.ckpt", weights_only=True)
        again = graphseq.load(tmp_path / "a.ckpt")
        assert again.vocabulary == Vocabulary(" abc", "character")
        assert again.vocabulary is not task.vocabulary
        older = torch.load(tmp_path / "a.ckpt", weights_only=True)
        older["graphseq"]["vocabulary"]["kind"] = older["graphseq"]["vocabulary"].pop("unit")
        torch.save(older, tmp_path / "a.ckpt")
        with pytest.raises(CheckpointError, match=r"vocabulary\.unit"):
            graphseq.load(tmp_path / "a.ckpt")

    @pytest.mark.parametrize(
        "batch", [torch.zeros(3, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64), {"ids": 3}]
    )
    def test_refused(self, batch):
        with pytest.raises(DataError, match="token numbers"):
            language().step(batch, "train")

    def test_wrong_sizes(self):
        with pytest.raises(ValueError, match="num_outputs is 1"):
            LanguageModeling(RecurrentLanguageModel(1), 1)
        with pytest.raises(ValueError, match="num_outputs"):
            LanguageModeling(RecurrentLanguageModel(9), 8).step(torch.randint(8, (2, 4)), "train")
        with pytest.raises(DataError, match="target holds 8"):
            LanguageModeling(Flat(), 8).step(torch.tensor([[1, 8]]), "train")


class Flat(nn.Module):
    """Says the same of every token, and knows none."""

    def forward(self, ids):
        return torch.zeros(*ids.shape, 8)


def waves(tagging):
    lengths = torch.tensor([6, 2, 4])
    x = torch.randn(3, 6, 2, dtype=torch.float64)
    if tagging:
        step_y = torch.randint(3, (3, 6))
        step_y[0, 2] = -100
        return SequenceBatch(x, lengths, step_y=step_y)
    return SequenceBatch(x, lengths, y=torch.tensor([0, 2, 1]))


class TestSequenceTagging:
    def task(self):
        return SequenceTagging(SequenceTagger(3, in_channels=2, hidden_channels=6).double(), 3)

    def test_loss_and_metrics_equal_the_loop(self):
        task, batch = self.task(), waves(tagging=True)
        terms, hits = [], []
        for row, size in enumerate(batch.lengths.tolist()):
            logits = task.model(batch.x[row : row + 1, :size])[0]
            terms += reference.negative_log_likelihoods(logits.tolist(), batch.step_y[row, :size].tolist())
            hits += [
                int(logits[t].argmax() == batch.step_y[row, t]) for t in range(size) if batch.step_y[row, t] != -100
            ]
        step = task.step(batch, "val")
        assert int(step.size) == len(terms) == 11
        assert abs(float(step.loss) - sum(terms) / 11) < 1e-12
        metrics = task.configure_metrics()
        metrics.update(step.prediction, step.target)
        assert float(metrics.compute()["acc"]) == pytest.approx(sum(hits) / 11)

    def test_padding_never_counts(self):
        """Neither what stands in the padded inputs nor the targets there changes loss, gradient or metrics."""
        task, batch = self.task(), waves(tagging=True)
        x = torch.where(batch.mask[..., None], batch.x, 1e3)
        other = SequenceBatch(x, batch.lengths, step_y=torch.where(batch.mask, batch.step_y, 1))
        steps = [task.step(given, "val") for given in (batch, other)]
        assert torch.equal(steps[0].target, steps[1].target)
        gradients = [torch.autograd.grad(step.loss, list(task.parameters())) for step in steps]
        assert torch.allclose(steps[0].loss, steps[1].loss, atol=1e-14)
        assert all(torch.allclose(left, right, atol=1e-12) for left, right in zip(*gradients, strict=True))
        values = []
        for step in steps:
            metrics = task.configure_metrics()
            metrics.update(step.prediction, step.target)
            values.append(metrics.compute())
        assert values[0] == values[1]

    def test_runs_and_learns(self):
        data = SyntheticSequencesDataModule(200, batch_size=16, pool_batches=5)
        model = SequenceTagger(data.num_outputs, data.num_features, hidden_channels=16, bidirectional=True)
        task = SequenceTagging(model, data.num_outputs, optimizer=functools.partial(torch.optim.Adam, lr=2e-2))
        trainer(max_epochs=5).fit(task, data)
        assert trainer().test(task, data, verbose=False)[0]["test/acc"] > 0.7

    def test_refused(self):
        batch = waves(tagging=True)
        with pytest.raises(DataError, match="step_y"):
            self.task().step(waves(tagging=False), "train")
        with pytest.raises(DataError, match="lengths"):
            self.task().step({"x": batch.x, "step_y": batch.step_y}, "train")
        batch.step_y[0, 0] = 3
        with pytest.raises(DataError, match="target holds 3"):
            self.task().step(batch, "train")
        with pytest.raises(ValueError, match="num_outputs is 1"):
            SequenceTagging(SequenceTagger(1, in_channels=2), 1)


class TestSequenceClassification:
    def task(self, kind=SequenceClassification):
        torch.manual_seed(0)
        return kind(SequenceClassifier(3, in_channels=2, hidden_channels=6).double(), 3)

    def test_loss_equals_the_loop(self):
        task, batch = self.task(), waves(tagging=False)
        rows = [task.model(batch.x[n : n + 1, :size])[0].tolist() for n, size in enumerate(batch.lengths.tolist())]
        expected = sum(reference.negative_log_likelihoods(rows, batch.y.tolist())) / 3
        step = task.step(batch, "train")
        assert abs(float(step.loss) - expected) < 1e-12
        assert torch.equal(step.loss, self.task(Classification).step(batch, "train").loss)

    def test_runs_and_learns(self):
        data = SyntheticSequencesDataModule(300, 2, switch=0.0, batch_size=16)
        model = SequenceClassifier(data.num_outputs, data.num_features, hidden_channels=16)
        task = SequenceClassification(model, data.num_outputs, optimizer=functools.partial(torch.optim.Adam, lr=2e-2))
        trainer(max_epochs=3).fit(task, data)
        assert trainer().test(task, data, verbose=False)[0]["test/acc"] > 0.9

    @pytest.mark.parametrize("lengths", [[6, 0, 4], [6, 7, 4]])
    def test_refused(self, lengths):
        batch = waves(tagging=False)
        with pytest.raises(DataError, match=f"lengths .* {min(lengths)} to {max(lengths)}"):
            self.task().step(SequenceBatch(batch.x, torch.tensor(lengths), y=batch.y), "train")
        with pytest.raises(DataError, match="lengths None"):
            self.task().step((batch.x, batch.y), "train")
