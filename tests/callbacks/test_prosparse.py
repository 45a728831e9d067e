"""ProSparse in training: its steps, the penalty by hand, sparsity, padding, resumption, and what is refused."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import graphseq
from graphseq.callbacks import ProSparse
from graphseq.core import Recorded, SequenceBatch, make
from graphseq.data import BatchLoader, TokenStore
from graphseq.models import TransformerLanguageModel
from graphseq.nn import BlockStack, CausalAttention, FATReLU, FeedForward, GatedFeedForward, SequenceBlock
from graphseq.sparsity import progressive_weight
from graphseq.tasks import Classification, LanguageModeling
from tests.reliability.runs import trainer, weights
from tests.reliability.test_resume import Interrupted, SaveAndStop, assert_same

pytestmark = pytest.mark.filterwarnings("ignore:You defined a", "ignore:.*LeafSpec")
STAGES = [(0.0, 2), (0.1, 3), (0.8, 6)]
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


class Halves(Recorded, nn.Module):
    """Two gated parts of different widths, one after the other."""

    def __init__(self, activation=None):
        super().__init__()
        self.first, self.second = GatedFeedForward(4, 6, activation), GatedFeedForward(4, 10, activation)

    def forward(self, x):
        return self.second(self.first(x))


def loader():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 4, generator=generator), torch.randint(0, 4, (24,), generator=generator)
    return DataLoader(list(zip(x, y, strict=True)), batch_size=8)


def tokens():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 5, (24, 6), generator=generator)
    return BatchLoader(TokenStore.from_rows(rows, torch.arange(24) % 5 + 2), batch_size=8, shuffle=True)


def build(activation=None):
    torch.manual_seed(0)
    return Classification(Halves(activation), 4, optimizer=SGD)


def language():
    torch.manual_seed(0)
    block = SequenceBlock(CausalAttention(8), GatedFeedForward(8, 16))
    return LanguageModeling(TransformerLanguageModel(5, BlockStack([block], repeats=2)), 5, optimizer=SGD)


def fit(task, callbacks, data, epochs=2, **options):
    run = trainer(max_epochs=epochs, callbacks=callbacks, **options)
    run.fit(task, data, data if options.get("limit_val_batches") else None)
    return run


@pytest.mark.parametrize("norm", ["mean", "sum"])
def test_training_equals_a_loop_by_hand(norm):
    task, by_hand = build(), build()
    fit(task, [ProSparse(STAGES, start=1, norm=norm)], loader())
    network = by_hand.model
    optimizer = SGD(network.parameters())
    for step, (x, y) in enumerate([*loader(), *loader()]):
        norms, hidden = [], x
        for part, units in ((network.first, 6), (network.second, 10)):
            gate, value = (hidden @ rows.t() for rows in part.gate_and_value.weight.chunk(2))
            product = (nn.functional.silu(gate) if step < 1 else gate.clamp(min=0)) * value
            norms.append(product.abs().sum() / len(x) / (units if norm == "mean" else 1))
            hidden = product @ part.output.weight.t()
        loss = nn.functional.cross_entropy(hidden, y) + progressive_weight(step, STAGES) * sum(norms) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for found, expected in zip(task.model.parameters(), network.parameters(), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)
    assert task.penalties == {}
    assert type(task.model.first.activation) is nn.ReLU
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in task.model.modules())


def test_weight_0_is_training_without_the_callback():
    plain, sparse = build(make(nn.ReLU)), build(make(nn.ReLU))
    fit(plain, [], loader())
    run = fit(sparse, [ProSparse([(0.0, 6)])], loader())
    assert_same(weights(sparse), weights(plain))
    assert float(run.callback_metrics["train/penalty/prosparse"]) == 0.0
    assert 0 < float(run.callback_metrics["train/prosparse_l1"]) < float(run.callback_metrics["train/prosparse_l1_sum"])


def test_threshold_comes_after_the_last_step_and_sparsity_is_counted():
    task, callback = build(), ProSparse(STAGES, threshold=0.3)
    run = fit(task, [callback], loader(), limit_val_batches=3)
    assert (callback.phase, type(task.model.first.activation), task.model.second.activation.threshold) == (
        "shifted", FATReLU, 0.3,
    )  # fmt: skip
    shares, hidden = [], torch.cat([x for x, _ in loader()])
    with torch.no_grad():
        for part in (task.model.first, task.model.second):
            gate = hidden @ part.gate_and_value.weight.chunk(2)[0].t()
            shares.append(sum(float(value) < 0.3 for value in gate.flatten()) / gate.numel())
            hidden = part(hidden)
    assert list(callback.values.values()) == pytest.approx(shares)
    assert list(callback.values) == ["gate_sparsity/first", "gate_sparsity/second"]
    assert float(run.callback_metrics["val/gate_sparsity"]) == pytest.approx(sum(shares) / 2)


def test_padding_counts_neither_in_the_penalty_nor_in_the_sparsity():
    task, callback = language(), ProSparse([(0.0, 0), (1.0, 1)])
    batch = SequenceBatch(torch.zeros(2, 4, dtype=torch.int64), torch.tensor([4, 2]))
    hidden = torch.rand(2, 3, 5)  # steps that have a next one
    callback.on_train_batch_start(type("Run", (), {"global_step": 0}), task, batch, 0)
    callback._collect(nn.Identity(), (hidden,))
    task.log_dict = lambda *given, **options: None
    expected = (hidden[0].sum() + hidden[1, :1].sum()) / 4 / 5
    assert float(callback.penalty(task)) == pytest.approx(float(expected))
    with pytest.raises(RuntimeError, match="TransformerLanguageModel"):
        callback.penalty(task)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_resumed_run_is_the_uninterrupted_one(step, tmp_path):
    def callbacks():
        return ProSparse([(0.0, 1), (0.1, 2), (0.9, 5)], start=2, threshold=0.1)

    whole = language()
    fit(whole, [callbacks()], tokens())
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(Interrupted):
        fit(language(), [callbacks(), SaveAndStop(step, path)], tokens())
    resumed, callback = language(), callbacks()
    run = trainer(max_epochs=2, callbacks=[callback])
    run.fit(resumed, tokens(), ckpt_path=path, weights_only=True)
    assert_same(weights(resumed), weights(whole))
    assert callback.phase == "shifted"


def test_a_checkpoint_holds_the_activations(tmp_path):
    trained, path = build(), tmp_path / "last.ckpt"
    fit(trained, [ProSparse(STAGES, threshold=0.1)], loader()).save_checkpoint(path)
    # the record of the network tells them, or, for a network from a config, the state of the callback
    for task in (graphseq.load(path), build()):
        trainer(callbacks=[ProSparse(STAGES)]).test(task, loader(), ckpt_path=path, weights_only=True, verbose=False)
        assert task.model.second.activation.threshold == 0.1
        assert_same(weights(task), weights(trained))


def test_a_run_that_goes_on_from_its_end_trains_with_relu(tmp_path):
    def callbacks():
        return ProSparse(STAGES, threshold=0.5)

    whole, first, second = build(), build(), build()
    fit(whole, [callbacks()], loader())
    with pytest.warns(UserWarning, match="3 steps and the last stage ends at 6"):
        run = fit(first, [callbacks()], loader(), epochs=1)
    assert isinstance(first.model.first.activation, FATReLU)
    run.save_checkpoint(tmp_path / "first.ckpt")
    trainer(max_epochs=2, callbacks=[callbacks()]).fit(
        second, loader(), ckpt_path=tmp_path / "first.ckpt", weights_only=True
    )
    assert_same(weights(second), weights(whole))


@pytest.mark.parametrize(
    ("make_callback", "message"),
    [
        (lambda: ProSparse([]), "stages is"),
        (lambda: ProSparse([0.1, 5]), r"stages is \[0.1, 5\]"),
        (lambda: ProSparse([(0.1, 5), (-0.1, 6)]), "weight -0.1"),
        (lambda: ProSparse([(0.1, 5), (0.2, 5)]), r"\[5, 5\]"),
        (lambda: ProSparse(STAGES, start=-1), "start is -1"),
        (lambda: ProSparse(STAGES, threshold=-0.5), "threshold is -0.5"),
        (lambda: ProSparse(STAGES, norm="max"), "norm is 'max'"),
    ],
)
def test_wrong_arguments(make_callback, message):
    with pytest.raises(ValueError, match=message):
        make_callback()


def test_networks_without_gates_are_refused():
    for network, message in ((FeedForward(4), "FeedForward has no gated"), (Halves(make(nn.Tanh)), "first .*Tanh")):
        with pytest.raises(TypeError, match=message):
            fit(Classification(network, 4), [ProSparse(STAGES)], loader())
