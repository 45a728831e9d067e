import copy
import functools
import sys
import warnings

import lightning
import pytest
import torch
from torch import nn

import graphseq
from graphseq.core import CheckpointError, Recorded, make
from graphseq.models import MLP
from graphseq.tasks import Classification, Regression, Task, load
from tests.reliability.runs import trainer, weights
from tests.tasks import small
from tests.tasks.small import Fit, Partial, Probe, fit, halving, loader, rows, sgd, sgd_with

LABELLED = [(torch.arange(12.0).view(4, 3), torch.tensor([0, 1, 1, 0]))]


def saved(task, path, batches=None):
    fit(task, batches or rows(4)).save_checkpoint(path)
    return path


def edited(path, change):
    """Change a checkpoint file in place."""
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    return path


def refusal(path, **override):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CheckpointError) as caught:
            load(path, **override)
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.ckpt"


# what can be loaded


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Fit, {"depth": 2}),
        (Fit, {"optimizer": functools.partial(torch.optim.SGD, lr=0.25), "stop_on_nonfinite": False}),
        (Partial, {}),
    ],
)
def test_tasks_of_users_are_loaded_by_name(kind, options, path):
    task = kind(3, **options)
    (batch,) = rows(4)
    saved(task, path, [batch])
    # nothing of the habitual save_hyperparameters() is in it, and nothing but tensors and plain data
    noted = torch.load(path, weights_only=True)["hyper_parameters"]
    assert noted["_class_path"] == f"tests.tasks.small.{kind.__name__}"
    assert set(noted) == {"_class_path", "_instantiator", "width", *options}
    for given in (path, str(path)):
        again = graphseq.load(given)
        assert type(again) is kind
        assert torch.equal(again(batch), task(batch))
    assert again.stop_on_nonfinite is options.get("stop_on_nonfinite", True)
    rate = again.configure_optimizers().param_groups[0]["lr"]
    assert rate == (0.25 if "optimizer" in options else 1e-3)


def test_loaded_tasks_are_independent(path):
    task = Fit(3)
    saved(task, path)
    first, second = load(path), load(path)
    fit(first, rows(2))
    assert all(torch.equal(value, weights(task)[name]) for name, value in second.state_dict().items())


@pytest.mark.parametrize(
    ("given", "rate"), [(sgd, 0.5), (functools.partial(sgd_with, lr=0.125), 0.125), (torch.optim.SGD, 1e-3)]
)
def test_plain_functions_and_classes_as_optimizers(given, rate, path):
    task = Regression(Probe(3, 3), optimizer=given, scheduler=halving)
    saved(task, path)
    again = load(path)
    made = again.configure_optimizers()
    assert type(made["optimizer"]) is torch.optim.SGD
    assert made["optimizer"].param_groups[0]["lr"] == rate
    assert made["lr_scheduler"]["scheduler"].gamma == 0.5
    saved(again, path)
    assert load(path).configure_optimizers()["optimizer"].param_groups[0]["lr"] == rate


def test_a_class_of_a_script_is_loaded_by_that_script_only(path, monkeypatch):
    class Script(Fit):
        pass

    Script.__module__, Script.__qualname__ = "__main__", "Script"
    monkeypatch.setattr(sys.modules["__main__"], "Script", Script, raising=False)
    saved(Script(3), path)
    assert type(load(path)) is Script
    monkeypatch.delattr(sys.modules["__main__"], "Script")
    assert "holds a __main__.Script, which cannot be imported" in refusal(path)


def test_arguments_can_be_replaced(path):
    task = Classification(
        MLP(3, 2, hidden_features=4), 2, label_smoothing=0.1, optimizer=sgd, class_weights=[1.0, 2.0], scheduler=halving
    )
    saved(task, path, LABELLED)
    again = load(path, label_smoothing=0.25, class_weights=None, stop_on_nonfinite=False)
    assert (again.label_smoothing, again.class_weights, again.stop_on_nonfinite) == (0.25, None, False)
    assert torch.equal(again(LABELLED[0]), task(LABELLED[0]))
    for optimizer in (
        torch.optim.RMSprop,
        functools.partial(torch.optim.RMSprop, lr=0.01),
        lambda p: torch.optim.RMSprop(p),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the lambda cannot be noted in the next checkpoint
            replaced = load(path, optimizer=optimizer, scheduler=None)
        assert type(replaced.configure_optimizers()) is torch.optim.RMSprop


def test_wrong_replacements(path):
    saved(Classification(MLP(3, 2), 2), path, LABELLED)
    with pytest.raises(TypeError, match=r"Classification .*label_smothing; .*model, num_outputs"):
        load(path, label_smothing=0.1)
    assert "label_smoothing is 2.0; it must be in [0, 1)" in refusal(path, label_smoothing=2.0)
    saved(Fit(3), path)
    assert "unexpected keyword argument 'label_smoothing'" in refusal(path, label_smoothing=0.1)


def test_map_location(path):
    saved(Fit(3), path)
    for place in ("cpu", torch.device("cpu"), lambda storage, location: storage):
        assert next(load(path, map_location=place).parameters()).device.type == "cpu"


@pytest.mark.gpu
def test_weights_come_back_where_they_were_or_where_told(path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    fit(Fit(3), rows(4), accelerator="gpu").save_checkpoint(path)
    assert next(load(path).parameters()).device.type == "cuda"
    assert next(load(path, "cpu").parameters()).device.type == "cpu"


# arguments that could not be noted


@pytest.mark.filterwarnings("ignore:.*cannot be written as plain data")
def test_a_foreign_network_is_given_again(path):
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    task = Classification(net, 2)
    saved(task, path, LABELLED)
    message = refusal(path)
    assert "could not be built again" in message
    assert "graphseq.load(path, model=...)" in message
    fresh = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="(?s).*(cannot be written|instantiate_classes|By default only one)")
        again = load(path, model=fresh)
    assert again.model is fresh
    assert torch.equal(again(LABELLED[0]), task(LABELLED[0]))
    message = refusal(path, model=nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)))
    assert "model.0.bias is (4,) there and (5,) here" in message
    assert "an argument that is not recorded differs" in message
    # a network that was noted can be replaced too, and the message does not take it for the checkpoint's
    saved(Classification(MLP(3, 2, hidden_features=4), 2), path, LABELLED)
    assert "MLP" not in refusal(path, model=MLP(3, 2, hidden_features=5)).partition("Built with")[2]


@pytest.mark.filterwarnings("ignore:.*cannot be written as plain data")
def test_a_default_in_place_of_what_was_given_is_not_silent(path):
    saved(Regression(Probe(3, 3), 3, loss=nn.L1Loss()), path)
    with pytest.warns(UserWarning, match=r"loss of Regression .*a\.ckpt"):
        again = load(path)
    assert type(again.loss) is nn.MSELoss
    for given in (nn.L1Loss(), make(nn.L1Loss)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*cannot be written|.*instantiate_classes")
            assert type(load(path, loss=given).loss) is nn.L1Loss
    # what was noted needs no word
    saved(Regression(Probe(3, 3), 3, loss=make(nn.L1Loss)), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*instantiate_classes")
        assert type(load(path).loss) is nn.L1Loss


# what cannot be loaded


def test_no_file(tmp_path):
    for missing in (tmp_path / "b.ckpt", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint {missing}"):
            load(missing)


@pytest.mark.parametrize("content", [b"", b"\x80\x02\x93 not a checkpoint" * 40])
def test_no_checkpoint(content, path):
    path.write_bytes(content)
    assert "a.ckpt is not a checkpoint: it is damaged, or not written by torch.save" in refusal(path)


def test_damaged_checkpoint(path):
    saved(Fit(3), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in refusal(path)
    middle = len(whole) // 8
    path.write_bytes(whole[:middle] + bytes(256) + whole[middle + 256 :])
    assert "a.ckpt cannot be read as a checkpoint" in refusal(path)


def test_pickled_modules_are_not_opened(path):
    torch.save(Probe(3, 3), path)
    assert "cannot be read as a checkpoint" in refusal(path)
    torch.save([torch.ones(2)], path)
    assert "is not a checkpoint of a graphseq task" in refusal(path)
    torch.save(Probe(3, 3).state_dict(), path)
    assert "is not a checkpoint of a graphseq task" in refusal(path)


class Foreign(lightning.LightningModule):
    def __init__(self, width=3):
        super().__init__()
        self.save_hyperparameters()
        self.linear = nn.Linear(width, width)

    def training_step(self, batch, batch_idx):
        return self.linear(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_foreign_lightning_checkpoints(path):
    saved(Foreign(), path)
    assert "is not a checkpoint of a graphseq task: it does not record the task" in refusal(path)
    # into a run
    with pytest.raises(CheckpointError, match=r"linear\.bias is \(3,\) "):
        trainer().fit(Fit(3), loader(rows(2)), ckpt_path=path)
    # as Lightning's own command line writes them
    edited(path, lambda checkpoint: checkpoint["hyper_parameters"].update(_class_path=f"{__name__}.Foreign"))
    assert "Foreign, which is not a graphseq task" in refusal(path)


@pytest.mark.parametrize("name", ["tests.tasks.small.Gone", "tests.tasks.gone.Fit", "Fit"])
def test_class_that_no_longer_exists(name, path):
    saved(Fit(3), path)
    edited(path, lambda checkpoint: checkpoint["hyper_parameters"].update(_class_path=name))
    message = refusal(path)
    assert f"(graphseq {graphseq.__version__}, installed {graphseq.__version__})" in message
    assert f"holds a {name}, which cannot be imported" in message


def test_function_that_no_longer_exists(path, monkeypatch):
    monkeypatch.setattr(small, "lost", sgd_with, raising=False)
    saved(Regression(Probe(3, 3), optimizer=sgd), path)
    edited(path, lambda checkpoint: checkpoint["hyper_parameters"].update(optimizer="tests.tasks.small.lost"))
    assert load(path).optimizer is sgd_with
    monkeypatch.delattr(small, "lost")
    assert "there is no 'tests.tasks.small.lost'" in refusal(path)
    assert load(path, optimizer=sgd).optimizer is sgd


def test_another_version_with_other_weights(path):
    saved(Fit(3), path)

    def older(checkpoint):
        checkpoint["graphseq"]["version"] = "0.0.1"
        checkpoint["state_dict"]["model.0.kernel"] = checkpoint["state_dict"].pop("model.0.weight")

    edited(path, older)
    message = refusal(path)
    assert f"(graphseq 0.0.1) does not fit this Fit ({graphseq.__version__})" in message
    assert "model.0.kernel is (3, 3) there and absent here" in message
    assert "model.0.weight is absent there and (3, 3) here" in message
    assert "the same arguments: the code of the network has changed" in message


def test_another_version_with_the_same_weights_is_loaded(path):
    task = Fit(3)
    saved(task, path)
    edited(path, lambda checkpoint: checkpoint["graphseq"].update(version="99.0"))
    assert torch.equal(load(path).model[0].weight, task.model[0].weight)
    edited(path, lambda checkpoint: checkpoint.pop("graphseq"))
    assert torch.equal(load(path).model[0].weight, task.model[0].weight)


def test_checkpoint_of_another_task(path):
    saved(Regression(MLP(3, 2, hidden_features=4), 2), path, [(rows(4)[0][0], torch.randn(4, 2))])
    with pytest.raises(CheckpointError, match=r"graphseq\.tasks\.Regression, .*graphseq\.tasks\.Classification"):
        trainer().fit(Classification(MLP(3, 2, hidden_features=4), 2), loader(LABELLED), ckpt_path=path)


def resume(task, path):
    with pytest.raises(CheckpointError) as caught:
        trainer(max_epochs=2).fit(task, loader(LABELLED), ckpt_path=path)
    return str(caught.value)


def classifier(hidden=4, **options):
    return Classification(MLP(3, 2, hidden_features=hidden, **options), 2)


def test_checkpoint_of_another_size_names_the_argument(path):
    saved(classifier(4), path, LABELLED)
    message = resume(classifier(6), path)
    assert "model.hidden.0.0.bias is (4,) there and (6,) here" in message
    assert message.endswith("Built with model.hidden_features = 4 there, 6 here")
    message = resume(classifier(128), path)
    assert message.endswith("Built with model.hidden_features = 4 there, 128 here")
    message = resume(classifier(4, num_layers=3), path)
    assert message.endswith("Built with model.num_layers = 2 there, 3 here")  # 2 is the default, not written
    message = resume(Classification(Probe(3, 2), 2), path)
    assert "model.class_path = graphseq.models.MLP there, tests.tasks.small.Probe here" in message


def test_loaded_tasks_note_defaults_and_messages_do_not_count_them(path):
    saved(classifier(4), path, LABELLED)
    saved(load(path), path, LABELLED)
    assert len(torch.load(path, weights_only=True)["hyper_parameters"]) > 5  # those given are four
    assert resume(classifier(6), path).endswith("Built with model.hidden_features = 4 there, 6 here")
    saved(classifier(4), path, LABELLED)
    again = load(path)
    edited(path, lambda checkpoint: checkpoint["state_dict"].pop("model.head.bias"))
    assert "the same arguments" in resume(again, path)


def test_the_network_is_named_before_the_rest(path):
    saved(classifier(4), path, LABELLED)
    other = Classification(
        MLP(3, 2, hidden_features=6), 2, class_weights=[1.0, 2.0], label_smoothing=0.1, optimizer=sgd
    )
    message = resume(other, path).partition("Built with ")[2]
    assert message.startswith("model.hidden_features = 4 there, 6 here; class_weights = None there, [1.0, 2.0] here")


class Nested(Recorded, nn.Module):
    def __init__(self, parts: list[nn.Module], first: nn.Module):
        super().__init__()
        self.parts = nn.Sequential(first, *parts)

    def forward(self, x):
        return self.parts(x)


def test_networks_in_networks_and_lists(path):
    task = Regression(Nested([MLP(4, 5), make(nn.Linear, 5, 3, bias=False)], first=make(nn.Linear, 3, 4)), 3)
    (batch,) = rows(4)
    saved(task, path, [batch])
    assert torch.equal(load(path)(batch), task(batch))


def test_partial_checkpoints(path):
    task = Fit(3, depth=2)
    saved(task, path)
    edited(path, lambda checkpoint: checkpoint["state_dict"].pop("model.1.bias"))
    assert "model.1.bias is absent there and (3,) here" in refusal(path)
    lenient = Partial(3, depth=2)
    saved(lenient, path)
    edited(path, lambda checkpoint: checkpoint["state_dict"].pop("model.1.bias"))
    edited(path, lambda checkpoint: checkpoint["state_dict"].update(extra=torch.ones(2)))
    with pytest.warns(UserWarning, match=r"model\.1\.bias"):
        again = load(path)
    assert torch.equal(again.model[0].weight, lenient.model[0].weight)
    assert torch.equal(again.model[1].weight, lenient.model[1].weight)


def test_checkpoint_of_several_processes(path):
    task = Fit(3)
    saved(task, path)
    edited(
        path, lambda checkpoint: checkpoint["graphseq"]["generators"].append(checkpoint["graphseq"]["generators"][0])
    )
    with pytest.warns(UserWarning, match="2 processes, .* 1: "):
        trainer(max_epochs=2).fit(Fit(3), loader(rows(4)), ckpt_path=path)


def test_weights_only_checkpoint(path):
    task = Fit(3)
    fit(task, rows(4)).save_checkpoint(path, weights_only=True)
    assert torch.equal(load(path).model[0].weight, task.model[0].weight)


def test_loading_through_the_class(path):
    task = classifier(4)
    saved(task, path, LABELLED)
    again = Classification.load_from_checkpoint(path)
    assert torch.equal(again(LABELLED[0]), task(LABELLED[0]))
    assert Classification.load_from_checkpoint(path, label_smoothing=0.5).label_smoothing == 0.5
    with pytest.raises(CheckpointError, match=r"graphseq\.tasks\.Classification, .*Task"):
        Task.load_from_checkpoint(path)


def test_copies_can_be_saved_and_loaded(path):
    task = copy.deepcopy(classifier(4))
    saved(task, path, LABELLED)
    assert torch.equal(load(path)(LABELLED[0]), task(LABELLED[0]))


# layouts of other versions


def test_renamed_tensors_are_named_with_their_new_names(path):
    task = Fit(3)
    saved(task, path)

    def rename(checkpoint):
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name.replace("model.", "net."): value for name, value in state.items()}

    text = refusal(edited(path, rename))
    assert "net.0.weight -> model.0.weight" in text
    assert "net.0.bias -> model.0.bias" in text
    with pytest.raises(CheckpointError, match=r"net\.0\.weight -> model\.0\.weight"):
        trainer(max_epochs=2).fit(Fit(3), loader(rows(4)), ckpt_path=path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda entry: entry.pop("generators"), "no generators, only left_out, version"),
        (lambda entry: entry.update(random=entry.pop("generators")), "no generators, only left_out, random, version"),
    ],
)
def test_entries_under_other_names_are_named(change, named, path):
    saved(Fit(3), path)
    assert named in refusal(edited(path, lambda checkpoint: change(checkpoint["graphseq"])))
    with pytest.raises(CheckpointError, match="generators"):
        trainer(max_epochs=2).fit(Fit(3), loader(rows(4)), ckpt_path=path)


def test_renamed_arguments_and_classes_are_named(path):
    saved(Classification(MLP(3, 2), 2, label_smoothing=0.1), path, LABELLED)

    def older(checkpoint):
        checkpoint["hyper_parameters"]["smoothing"] = checkpoint["hyper_parameters"].pop("label_smoothing")

    assert "smoothing" in refusal(edited(path, older))

    def renamed(checkpoint):
        checkpoint["hyper_parameters"]["_class_path"] = "graphseq.tasks.GraphClassification"

    assert "graphseq.tasks.GraphClassification" in refusal(edited(path, renamed))
