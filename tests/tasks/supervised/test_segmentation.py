import csv
import functools

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import nn

import graphseq
from graphseq.callbacks import SpectrumReport, draw_scores_by_snr, draw_spectra
from graphseq.callbacks.reports.spectra import _read
from graphseq.core import DataError, make
from graphseq.data import WidebandDataModule
from graphseq.metrics import complex_iou, mask_accuracy
from graphseq.models import CMuSeNet, EnergyDetector, RealMuSeNet
from graphseq.nn import ComplexFocalLoss, FocalLoss
from graphseq.tasks import Segmentation
from tests.reliability.runs import trainer, weights

BINS = 64


def build(kind=CMuSeNet, loss=None):
    lightning.seed_everything(0, verbose=False)
    data = WidebandDataModule(num_train=24, num_val=8, num_test=8, num_bins=BINS, snr=(0, 10), batch_size=8)
    network = kind(BINS, (2, 3), (1, 1), "1d", 4)
    loss = loss or (ComplexFocalLoss() if kind is CMuSeNet else FocalLoss())
    return Segmentation(network, loss, BINS, optimizer=functools.partial(torch.optim.Adam, lr=0.01)), data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs with its report and its checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    task, data = build()
    report = SpectrumReport(EnergyDetector(window=3), folder=folder)
    saved = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    fit = trainer(max_epochs=2, enable_checkpointing=True, callbacks=[report, saved])
    fit.fit(task, data)
    return task, data, fit, folder


def test_a_resumed_run_is_the_run(trained):
    task, _, _, folder = trained
    again, data = build()
    trainer(max_epochs=2).fit(again, data, ckpt_path=folder / "epoch=0.ckpt", weights_only=True)
    for name, value in weights(task).items():
        assert torch.equal(weights(again)[name], value), name
    loaded = graphseq.load(folder / "epoch=1.ckpt")
    x = data.store.take(torch.arange(3))["x"]
    assert torch.equal(loaded.eval().model(x), task.eval().model(x))


def test_loss_metrics_and_predictions(trained):
    task, data, _, _ = trained
    task.eval()
    batch = data.store.take(data.splits["test"])
    step = task.step(batch, "test")
    torch.testing.assert_close(step.loss, ComplexFocalLoss()(task.model(batch["x"]), batch["y"]))
    (scores,) = trainer().test(task, data, verbose=False)
    logits = task.model(batch["x"]).detach()
    assert scores["test/iou"] == pytest.approx(float(complex_iou(logits, batch["y"]).mean()), abs=1e-6)
    assert scores["test/acc"] == pytest.approx(float(mask_accuracy(logits, batch["y"]).mean()), abs=1e-6)
    table = task.predictions(data)
    assert table[[f"mask_{k}" for k in range(BINS)]].sum().sum() == int(((logits.real > 0) | (logits.imag > 0)).sum())
    assert table["target_5"].tolist() == batch["y"][:, 5].int().tolist()


def test_report_has_all_methods_at_all_ratios(trained):
    task, data, _, folder = trained
    with (folder / "scores_by_snr.csv").open() as file:
        rows = {(row["method"], float(row["snr"])): row for row in csv.DictReader(file)}
    assert {name for name, _ in rows} == {"network", "energy detector", "empty mask"}
    assert {ratio for _, ratio in rows} == {0.0, 10.0}
    batch = data.store.take(data.splits["val"])
    here = batch["snr"] == 10
    with torch.no_grad():
        expected = complex_iou(task.eval().model(batch["x"]), batch["y"])[here].mean()
    assert float(rows["network", 10.0]["iou"]) == pytest.approx(float(expected), abs=1e-4)
    assert float(rows["empty mask", 0.0]["iou"]) == 0.0
    free = (batch["y"][batch["snr"] == 0] == 0).float().mean()
    assert float(rows["empty mask", 0.0]["accuracy"]) == pytest.approx(float(free), abs=1e-4)
    assert float(rows["energy detector", 10.0]["iou"]) > 0.3
    for name in ("spectra.png", "iou_by_snr.png"):
        with Image.open(folder / name) as image:
            assert min(image.size) > 300
            assert len(set(image.convert("L").resize((40, 40)).tobytes())) > 5  # something is drawn


def test_averaged_weights_take_the_statistics_of_the_complex_norm_along():
    from graphseq.tasks.averaging import named_statistics

    names = [name for name, _ in named_statistics(build()[0])]
    assert "model.stem.1.running_mean" in names
    assert "model.stem.1.running_covariance" in names
    assert len(names) == 2 * 6


def test_the_twin_trains_by_the_same_task():
    task, data = build(RealMuSeNet)
    before = weights(task)
    trainer(max_epochs=1, limit_val_batches=0).fit(task, data)
    assert not torch.equal(weights(task)["model.head.weight"], before["model.head.weight"])


def test_what_does_not_fit_is_refused():
    task, data = build()
    batch = data.store.take(torch.arange(2))
    with pytest.raises(DataError, match="0 and 1"):
        task.step({**batch, "y": batch["y"] * float("nan")})
    with pytest.raises(DataError, match=r"\(2, 63\).*\(2, 64\)"):
        task.step({**batch, "y": batch["y"][:, :-1]})
    with pytest.raises(TypeError, match="float32.*focal_loss"):
        build(RealMuSeNet, ComplexFocalLoss())[0].step(batch)
    with pytest.raises(TypeError, match="complex64.*complex_focal_loss"):
        build(CMuSeNet, FocalLoss())[0].step(batch)
    with pytest.raises(TypeError, match="loss is a function"):
        Segmentation(task.model, torch.nn.functional.binary_cross_entropy_with_logits)
    with pytest.raises(ValueError, match="'xor'"):
        Segmentation(task.model, ComplexFocalLoss(), decision="xor")
    with pytest.raises(ValueError, match=r"\(2, 64\).*\(B, 32\)"):
        Segmentation(task.model, ComplexFocalLoss(), 32).step(batch)
    empty = {**batch, "y": torch.zeros(2, BINS)}  # masks without emitters have a loss and a score
    assert task.step(empty).loss.isfinite()
    with pytest.raises(ValueError, match="spectra are"):
        draw_spectra(batch["x"], batch["y"][:, 1:], batch["y"], ["a", "b"])
    with pytest.raises(ValueError, match="scores are"):
        draw_scores_by_snr({})


def test_a_loss_of_real_logits_on_complex_ones():
    batch = {"x": torch.randn(2, 16, dtype=torch.complex64).conj(), "y": torch.zeros(2, 16)}
    task = Segmentation(CMuSeNet(16, (2,), (1,), "1d"), make(nn.BCEWithLogitsLoss))
    with pytest.raises(TypeError, match="complex logits of CMuSeNet"):
        task.step(batch)


def test_report_shows_what_the_task_is_given():
    task, data = build()
    data.eval_transform = lambda batch: {**batch, "y": torch.ones_like(batch["y"])}
    _, mask, _, _ = _read(task, data, "val")
    assert mask.all()
