from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from graphseq.core import DataError
from graphseq.data import StoreDataModule, TensorStore


class Rows(StoreDataModule):
    reads = 0

    def __init__(self, count=20, **options):
        super().__init__(**{"batch_size": 4, **options})
        self.count = count

    def read(self):
        type(self).reads += 1
        store = TensorStore(torch.arange(self.count).float().unsqueeze(1), torch.arange(self.count))
        train, val, test = torch.arange(self.count).split([self.count - 8, 4, 4])
        return store, {"train": train, "val": val, "test": test}

    @property
    def num_features(self):
        return self.store.take(torch.tensor([0]))[0].size(1)

    @property
    def broken(self):
        return self.nothing_of_that_name


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


def test_reads_once_whatever_is_asked_first():
    Rows.reads = 0
    data = Rows()
    assert data.num_features == 1
    data.prepare_data()
    data.setup("fit")
    assert len(list(data.train_dataloader())) == 3
    assert Rows.reads == 1


def test_stages_and_orders():
    data = Rows()
    first = [batch[1].tolist() for batch in data.batches("train", epoch=0)]
    assert sorted([i for batch in first for i in batch]) == list(range(12))
    assert first == [batch[1].tolist() for batch in data.batches("train", epoch=0)]
    assert first != [batch[1].tolist() for batch in data.batches("train", epoch=1)]
    assert [batch[1].tolist() for batch in data.batches("val")] == [[12, 13, 14, 15]]
    assert [batch[1].tolist() for batch in data.predict_dataloader()] == [[16, 17, 18, 19]]


def test_transforms_belong_to_a_stage():
    data = Rows(train_transform=Double())
    for x, y in data.batches("train"):
        assert torch.equal(x.squeeze(1), 2.0 * y)
    for x, y in data.batches("test"):
        assert torch.equal(x.squeeze(1), y.float())


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class Probe(lightning.LightningModule):
    """Notes what each stage received."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen = {"train": [], "val": [], "test": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch[0] / batch[1].clamp(min=1).unsqueeze(1))
        return self.layer(batch[0]).mean()

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch[0] / batch[1].unsqueeze(1))

    def test_step(self, batch, batch_idx):
        self.seen["test"].append(batch[0] / batch[1].unsqueeze(1))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(**options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return lightning.Trainer(**{"max_epochs": 2, "accelerator": "cpu", **quiet, **options})


@pytest.mark.parametrize("resident", [True, False, "auto"])
def test_trainer_applies_the_transform_of_the_running_stage(resident):
    data, probe = Rows(train_transform=Double(), device_resident=resident), Probe()
    trainer().fit(probe, data)
    trainer().test(probe, data, verbose=False)
    assert set(torch.cat(probe.seen["train"]).flatten().tolist()) <= {2.0, 0.0}
    assert torch.cat(probe.seen["val"]).unique().tolist() == [1.0]
    assert torch.cat(probe.seen["test"]).unique().tolist() == [1.0]


def test_overfitting_does_not_shuffle():
    data, probe = Rows(), Probe()
    seen = []
    probe.training_step = lambda batch, batch_idx: (seen.append(batch[1].tolist()), probe.layer(batch[0]).mean())[1]
    trainer(overfit_batches=1).fit(probe, data)
    assert seen == [[0, 1, 2, 3]] * 2


def test_error_inside_a_size_is_not_taken_for_a_missing_one():
    with pytest.raises(DataError, match=r"Rows.broken.*nothing_of_that_name"):
        _ = Rows().broken
    with pytest.raises(AttributeError, match="no attribute 'horizon'"):
        _ = Rows().horizon
    assert not hasattr(Rows(), "horizon")


def test_empty_evaluation_splits_are_no_loader():
    class NoVal(Rows):
        def read(self):
            store, splits = super().read()
            return store, {**splits, "val": splits["val"][:0], "test": splits["test"][:0]}

    assert NoVal().val_dataloader() == []
    trainer().fit(Probe(), NoVal())


def test_resuming_on_other_data_is_refused_testing_warns():
    data, other = Rows(), Rows(count=24)
    state = data.state_dict()
    data.load_state_dict(state)
    with pytest.warns(UserWarning, match="'train': 12.*training split"):
        other.load_state_dict(state)

    class Fitting:
        class state:
            from lightning.pytorch.trainer.states import TrainerFn

            fn = TrainerFn.FITTING

    other.trainer = Fitting()
    with pytest.raises(DataError, match="'train': 12.*; resume"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": -3}, "batch_size is -3"),
        ({"batch_size": True}, "batch_size is True"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
        ({"device_resident": "maybe"}, "device_resident is 'maybe'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Rows(**options)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": torch.arange(3)}, r"splits \['train'\]"),
        ({"train": torch.arange(0), "val": torch.arange(1), "test": torch.arange(1)}, "training split of Bad"),
        ({"train": torch.arange(99), "val": torch.arange(1), "test": torch.arange(1)}, r"98; with 20 samples"),
    ],
)
def test_bad_splits(splits, message):
    class Bad(Rows):
        def read(self):
            return super().read()[0], splits

    with pytest.raises(DataError, match=message):
        Bad().load()


def test_read_must_be_defined():
    with pytest.raises(TypeError, match=r"StoreDataModule .*read\(\)"):
        StoreDataModule().load()


def test_noise_transform_draws_from_the_global_generator():
    torch.manual_seed(0)
    first = [x for x, _ in Rows(train_transform=Noise()).batches("train")]
    torch.manual_seed(0)
    second = [x for x, _ in Rows(train_transform=Noise()).batches("train")]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Scaled(Rows):
    def state_dict(self):
        return {**super().state_dict(), "mean": 2.0}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.mean = state_dict["mean"]


def test_a_state_of_another_layout_names_what_it_lacks():
    data = Scaled()
    older = {**data.state_dict(), "centre": 2.0}
    del older["mean"]
    with pytest.raises(DataError, match=r"Scaled .* no mean, only centre, contents, fingerprint, sizes"):
        data.load_state_dict(older)
    data.load_state_dict({**data.state_dict(), "centre": 2.0})
    assert data.mean == 2.0


class Drawn(Rows):
    """Data whose values, but not whose splits, depend on an argument."""

    def __init__(self, noise_seed=0, scale=1.0, **options):
        super().__init__(**options)
        self.noise_seed, self.scale = noise_seed, scale

    def read(self):
        _, splits = super().read()
        x = torch.randn(self.count, 3, generator=torch.Generator().manual_seed(self.noise_seed))
        return TensorStore(self.scale * x, torch.arange(self.count)), splits


def test_generated_values_are_those_of_the_checkpoint(tmp_path):
    fitting = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING))
    torch.save(Drawn().state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    same, close, other = Drawn(), Drawn(scale=1 + 1e-6), Drawn(noise_seed=1)
    for data in (same, close, other):
        data.trainer = fitting
    same.load_state_dict(state)
    close.load_state_dict(state)  # as another processor would generate them
    with pytest.raises(DataError, match=r"as these are, but their values differ.*with the same seed"):
        other.load_state_dict(state)
    other.trainer.state.fn = TrainerFn.TESTING
    other.load_state_dict(state)


@pytest.mark.parametrize("seed", [-1, None, 1.5, 2**32])
def test_seeds_that_no_generator_takes(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}"):
        Rows(seed=seed)


def test_transforms_that_cannot_be_called():
    with pytest.raises(TypeError, match="eval_transform is a str"):
        Rows(eval_transform="flip")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "read.. gave a NoneType"),
        (TensorStore(torch.arange(4)), "read.. gave a TensorStore"),
        ((torch.utils.data.TensorDataset(torch.arange(4)), {}), "a TensorDataset as its store"),
        ((TensorStore(torch.arange(4)), [[0, 1], [2], [3]]), "a list as splits"),
    ],
)
def test_what_read_gives_is_checked(result, message):
    class Given(StoreDataModule):
        def read(self):
            return result

    with pytest.raises(DataError, match=message):
        Given().load()


def test_a_forgotten_super_is_named():
    class Forgotten(StoreDataModule):
        def __init__(self):
            self.count = 3

    with pytest.raises(AttributeError, match=r"super\(\).__init__"):
        Forgotten().train_dataloader()
