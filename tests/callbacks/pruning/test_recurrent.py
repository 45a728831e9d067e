import functools

import lightning
import pytest
import torch

import graphseq
from graphseq.callbacks import RecurrentPruning
from graphseq.data import SyntheticReberDataModule
from graphseq.models import SequenceClassifier
from graphseq.nn import MaskedRNN
from graphseq.tasks import SequenceClassification
from tests.reliability.runs import trainer, weights
from tests.reliability.test_resume import Interrupted, SaveAndStop, assert_same

CELLS = ["rnn_tanh", "rnn_relu", "gru", "lstm"]


def build(cell="gru", layers=1, seed=0, **optimizer):
    lightning.seed_everything(seed, verbose=False)
    data = SyntheticReberDataModule(300, batch_size=32, fractions=(0.5, 0.3, 0.2))
    recurrent = MaskedRNN(12, 12, layers, cell, dropout=0.2)
    model = SequenceClassifier(2, vocab_size=data.vocab_size, hidden_channels=12, recurrent=recurrent)
    return SequenceClassification(model, 2, optimizer=functools.partial(torch.optim.Adam, lr=0.01, **optimizer)), data


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("matrices", ["input_hidden", "hidden_hidden", "both"])
def test_prunes_the_matrices_once_and_records(cell, matrices):
    task, data = build(cell, weight_decay=0.1)
    pruning = RecurrentPruning(0.9, matrices, start_epoch=1)
    trainer(callbacks=[pruning], max_epochs=3).fit(task, data)
    layer = task.model.recurrent
    assert layer.sparsity(matrices) == pytest.approx(0.9, abs=0.01)
    other = {"input_hidden": "hidden_hidden", "hidden_hidden": "input_hidden"}.get(matrices)
    assert other is None or layer.sparsity(other) == 0
    assert all((weight[~mask] == 0).all() for weight, mask in layer.masked_weights().values())
    (found,) = pruning.prunings
    assert (found["epoch"], found["amount"]) == (1, 0.9)
    assert len(pruning.curve) == 2


def test_metric_is_that_of_validation_and_epochs_to_regain_are_counted():
    task, data = build()
    dense = trainer(max_epochs=1)
    dense.fit(task, data)
    known = float(dense.callback_metrics["val/acc"])
    pruning = RecurrentPruning(0.5)
    trainer(callbacks=[pruning], max_epochs=1).fit(task, data)
    assert pruning.prunings[0]["before"] == pytest.approx(known)
    untouched = RecurrentPruning(0.0)
    trainer(callbacks=[untouched], max_epochs=1).fit(task, data)
    assert untouched.prunings[0]["before"] == untouched.prunings[0]["after"]
    assert untouched.epochs_to_regain == 0

    counted = RecurrentPruning(0.5, num_steps=2)
    counted.prunings = [{"epoch": 0, "amount": 0.4, "before": 0.9, "after": 0.7}]
    fake = type("Run", (), {"sanity_checking": False, "current_epoch": 0, "loggers": [], "callback_metrics": {},
                            "state": type("State", (), {"fn": "fit"})})()  # fmt: skip
    for epoch, value in enumerate([0.95, 0.8, 0.89, 0.9, 0.7]):
        fake.current_epoch, fake.callback_metrics = epoch, {"val/acc": value}
        if epoch == 1:
            counted.prunings.append({"epoch": 1, "amount": 0.5, "before": 0.95, "after": 0.6})
        counted.on_validation_end(fake, task)
    assert counted.epochs_to_regain == 3, "from the last pruning in epoch 1 to the end of epoch 3"
    assert counted.curve == [0.95, 0.8, 0.89, 0.9, 0.7]


def test_evaluation_changes_neither_modes_nor_random_numbers():
    """With nothing to prune, the run is that without the callback."""
    task, data = build(layers=2)
    trainer(max_epochs=2).fit(task, data)
    watched, data = build(layers=2)
    trainer(callbacks=[RecurrentPruning(0.0, reset_optimizer=False)], max_epochs=2).fit(watched, data)
    assert_same({k: v for k, v in weights(watched).items()}, weights(task))


def test_gradual_pruning_follows_the_schedule():
    task, data = build()
    pruning = RecurrentPruning(0.8, start_epoch=1, num_steps=3, reset_optimizer=False)
    trainer(callbacks=[pruning], max_epochs=5).fit(task, data)
    assert [found["epoch"] for found in pruning.prunings] == [1, 2, 3]
    assert [found["amount"] for found in pruning.prunings] == pytest.approx([0.8 * (1 - (2 / 3) ** 3),
                                                                            0.8 * (1 - (1 / 3) ** 3), 0.8])  # fmt: skip
    assert task.model.recurrent.sparsity() == pytest.approx(0.8, abs=0.01)
    assert all((weight[~mask] == 0).all() for weight, mask in task.model.recurrent.masked_weights().values())


@pytest.mark.parametrize(("epochs", "score"), [(0.4, "random"), (1.0, "magnitude"), (2.4, "magnitude")])
def test_resume(epochs, score, tmp_path):
    """Stopped before, between and after prunings, a run goes on bit for bit, with what was recorded."""

    def callback():
        return RecurrentPruning(0.8, score=score, start_epoch=1, num_steps=2, reset_optimizer=epochs == 1.0)

    task, data = build()
    whole = callback()
    trainer(callbacks=[whole], max_epochs=4).fit(task, data)
    expected, step = weights(task), round(epochs * len(data.train_dataloader()))
    task, data = build()
    with pytest.raises(Interrupted):
        trainer(callbacks=[callback(), SaveAndStop(step, tmp_path / "k.ckpt")], max_epochs=4).fit(task, data)
    task, data = build(seed=0)
    torch.rand(100)
    resumed = callback()
    trainer(callbacks=[resumed], max_epochs=4).fit(task, data, ckpt_path=tmp_path / "k.ckpt", weights_only=True)
    assert_same(weights(task), expected)
    assert resumed.state_dict() == whole.state_dict()


def test_pruned_network_loads_without_the_callback(tmp_path):
    task, data = build()
    run = trainer(callbacks=[RecurrentPruning(0.8)], max_epochs=1)
    run.fit(task, data)
    run.save_checkpoint(tmp_path / "k.ckpt")
    loaded = graphseq.load(tmp_path / "k.ckpt")
    assert loaded.model.recurrent.sparsity() == task.model.recurrent.sparsity() > 0.7
    batch = next(data.batches("val"))
    assert torch.equal(loaded.eval()(batch), task.eval()(batch))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amount": 1.5}, "amount is 1.5"),
        ({"matrices": "all"}, "matrices is 'all'"),
        ({"scope": "row"}, "scope is 'row'"),
        ({"score": "movement"}, "score is 'movement'"),
        ({"num_steps": 0}, "num_steps 0"),
        ({"start_epoch": -1}, "start_epoch is -1"),
        ({"tolerance": -0.1}, "tolerance is -0.1"),
        ({"monitor": "train/loss"}, "monitor is 'train/loss'"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RecurrentPruning(**{"amount": 0.5, **options})


def test_refused_when_training_starts():
    task, data = build()
    with pytest.warns(UserWarning, match="max_epochs is 1"):
        trainer(callbacks=[RecurrentPruning(0.5, start_epoch=1)], max_epochs=1).fit(task, data)
    with pytest.raises(ValueError, match="monitor is 'val/mrr'"):
        trainer(callbacks=[RecurrentPruning(0.5, monitor="val/mrr")]).fit(task, data)
    with pytest.raises(TypeError, match="no data module"):
        trainer(callbacks=[RecurrentPruning(0.5)]).fit(task, data.loader("train"))
    dense = SequenceClassification(SequenceClassifier(2, vocab_size=data.vocab_size), 2)
    with pytest.raises(TypeError, match="no graphseq.nn.MaskedRNN"):
        trainer(callbacks=[RecurrentPruning(0.5)]).fit(dense, data)
