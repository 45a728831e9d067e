import functools
import itertools

import pytest
import torch
from torch import nn

from graphseq.core import DataError
from graphseq.data import StreamLoader, SyntheticTextDataModule, TensorStore
from graphseq.models import RecurrentLanguageModel
from graphseq.nn import ClassicalLSTM, LayerStack, RecurrentStack
from graphseq.tasks import CarriedLanguageModeling, LanguageModeling
from tests.reliability.runs import trainer


def build(vocab_size=9, recurrent=None, kind=CarriedLanguageModeling):
    torch.manual_seed(0)
    return kind(RecurrentLanguageModel(vocab_size, 5, 6, recurrent=recurrent).double(), vocab_size)


STACKS = {
    "lstm": lambda: None,
    "gru": lambda: RecurrentStack(5, 6, cell="gru"),
    "stack": lambda: LayerStack([ClassicalLSTM(5, 6, peepholes=True), RecurrentStack(6, 6, cell="rnn")]),
}


@pytest.mark.parametrize("kind", STACKS)
def test_windows_in_turn_are_the_whole_text(kind):
    """Losses are those of one pass over the text; gradients stop where a window begins."""
    task = build(recurrent=STACKS[kind]())
    text = torch.randint(9, (3, 13))
    whole, _ = task.model.forward_with_state(text[:, :-1])
    losses = nn.functional.cross_entropy(whole.transpose(1, 2), text[:, 1:], reduction="none")
    state = None
    for begin in (0, 4, 8):
        window = text[:, begin : begin + 5]
        step = task.step(window, "train")
        assert float(step.loss) == pytest.approx(float(losses[:, begin : begin + 4].mean()), abs=1e-12)
        found = torch.autograd.grad(step.loss, list(task.parameters()))
        logits, state = task.model.forward_with_state(window[:, :-1], state)
        alone = nn.functional.cross_entropy(logits.transpose(1, 2), window[:, 1:])
        wanted = torch.autograd.grad(alone, list(task.parameters()))
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, wanted, strict=True))
        state = detached(state)


def detached(state):
    return state.detach() if isinstance(state, torch.Tensor) else type(state)(map(detached, state))


def test_one_window_for_the_whole_text_is_full_backpropagation():
    text = torch.randint(9, (3, 13))
    losses = [build(kind=kind).step(text, "train").loss for kind in (CarriedLanguageModeling, LanguageModeling)]
    assert torch.equal(*losses)


def test_stages_do_not_disturb_each_other():
    task, other = build(), build()
    first, second, validated = torch.randint(9, (3, 2, 5))
    for each in (task, other):
        each.step(first, "train")
    task.step(validated, "val")
    assert torch.equal(task.step(second, "train").loss, other.step(second, "train").loss)
    task.forget("train")
    assert torch.equal(task.step(first, "train").loss, build().step(first, "train").loss)


def test_every_epoch_and_every_evaluation_begins_anew():
    data = SyntheticTextDataModule(30, length=8, order="streams", batch_size=4, eval_batch_size=3)
    task = CarriedLanguageModeling(RecurrentLanguageModel(data.vocab_size, 4, 5), data.vocab_size)
    zero = functools.partial(torch.optim.SGD, lr=0.0)
    task.optimizer = zero
    losses = []
    fitted = trainer(max_epochs=2)
    task.on_train_epoch_end = lambda: losses.append(float(fitted.callback_metrics["train/loss"]))
    fitted.fit(task, data)
    assert losses[0] == losses[1]
    tested = [trainer().test(task, data, verbose=False)[0]["test/loss"] for _ in range(2)]
    assert tested[0] == tested[1]
    fresh = CarriedLanguageModeling(task.model, data.vocab_size)
    batches = list(data.batches("test"))
    terms = [fresh.step(batch, "test") for batch in batches]
    mean = sum(float(step.loss) * int(step.size) for step in terms) / sum(int(step.size) for step in terms)
    assert tested[0] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_of_batches_go_on(split):
    data = SyntheticTextDataModule(100, length=8, order="streams", batch_size=5, eval_batch_size=3)
    batches = list(data.batches(split))
    assert len(batches) > 3
    assert len({len(batch) for batch in batches}) == 1
    for before, after in itertools.pairwise(batches):
        assert torch.equal(before.ids[:, -1], after.ids[:, 0])
    begin, end = data._bounds[split]
    rows = torch.cat([batch.ids[:, :-1] for batch in batches], 1)
    read = rows.flatten()[: rows.numel() - 8]
    assert torch.equal(read, data.store.tokens[begin : begin + len(read)].long())
    assert end - begin - rows.numel() <= 8 * len(rows)


def test_refused():
    with pytest.raises(TypeError, match="Linear has no forward_with_state"):
        CarriedLanguageModeling(nn.Linear(3, 4), 4)
    shuffled = SyntheticTextDataModule(60, length=8, batch_size=4)
    task = CarriedLanguageModeling(RecurrentLanguageModel(shuffled.vocab_size, 4, 5), shuffled.vocab_size)
    with pytest.raises(ValueError, match="order is 'shuffled' in SyntheticTextDataModule"):
        trainer().fit(task, shuffled)
    task = build()
    task.step(torch.randint(9, (3, 5)), "train")
    with pytest.raises(ValueError, match="state holds .* 2 rows"):
        task.step(torch.randint(9, (2, 5)), "train")
    with pytest.raises(ValueError, match="order is 'random'"):
        SyntheticTextDataModule(order="random")
    with pytest.raises(ValueError, match="stride is 3 with order 'streams'"):
        SyntheticTextDataModule(length=8, stride=3, order="streams")
    with pytest.raises(DataError, match="3 windows make no 4 streams"):
        StreamLoader(TensorStore(torch.arange(3)), 4)
    with pytest.raises(ValueError, match="world_size is 2"):
        StreamLoader(TensorStore(torch.arange(8)), 4, world_size=2)
