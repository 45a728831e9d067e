"""The report of prompts: what it draws, that it goes on after a stop, and what it refuses."""

import lightning
import pytest
import torch
from PIL import Image
from torch_geometric.data import Data

from graphseq.callbacks import PromptReport, draw_prompts
from graphseq.callbacks.reports.prompts import _molecule, _spectral
from graphseq.data import GraphDataModule
from graphseq.models import GraphClassifier, GraphEncoder
from graphseq.tasks import Classification, ReinforcedPromptTuning
from tests.reliability.runs import trainer


def run(callbacks, checkpoint=None, task=None, **options):
    lightning.seed_everything(0, verbose=False)
    rings = [torch.tensor([range(n), [*range(1, n), 0]]) for n in (3, 4, 6)]
    graphs = [
        Data(x=torch.rand(ring.size(1), 3), edge_index=torch.cat([ring, ring.flip(0)], 1), y=torch.tensor([k % 2]))
        for k in range(4) for ring in rings
    ]  # fmt: skip
    split = {"train": list(range(6)), "val": [6, 7, 8, 9], "test": [10, 11]}
    data = GraphDataModule(graphs, split=split, batch_size=6)
    if task is None:
        task = ReinforcedPromptTuning(GraphEncoder(3, 8), 2, target="multiclass", num_members=1, num_passes=1)
    fit = trainer(**{"max_epochs": 3, "callbacks": callbacks, **options})
    fit.fit(task, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return fit, task


def test_files_and_returns(tmp_path):
    report = PromptReport(num_graphs=3, folder=tmp_path / "report")
    fit, task = run([report])
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"prompts.png", "returns.png"}
    assert [list(values) for values in report.returns.values()] == [[0, 1, 2]] * 2
    assert report.returns["validation"][2] == pytest.approx(float(fit.callback_metrics["val/return"]))
    for name in ("prompts.png", "returns.png"):
        with Image.open(tmp_path / "report" / name) as image:
            assert min(image.size) > 300
            assert len(set(image.convert("L").resize((40, 40)).tobytes())) > 5  # something is drawn
    graphs = report._graphs(task)
    prompted, prompt, order = task.prompts(report._batch)
    for number, (place, edges, size, names, title) in enumerate(graphs):
        # of the batch, not of the order of sizes
        given = report._batch[number]
        assert place.shape == (given.num_nodes, 2)
        assert sorted(map(tuple, edges.T.tolist())) == sorted(map(tuple, given.edge_index.T.tolist()))
        where = prompted.ptr[int((order == number).nonzero())]
        assert torch.equal(size, prompt[where : where + given.num_nodes].abs().mean(1))
        assert names is None
        assert title == f"label {int(given.y)}: {int((size > 0).sum())} of {given.num_nodes} nodes prompted"


def test_returns_go_on_after_a_stop(tmp_path):
    fit, _ = run([PromptReport(folder=tmp_path)], max_epochs=2)
    fit.save_checkpoint(tmp_path / "k.ckpt")
    again = PromptReport(folder=tmp_path)
    run([again], checkpoint=tmp_path / "k.ckpt")
    assert list(again.returns["training"]) == [0, 1, 2]


def test_molecules_are_drawn_by_their_atoms():
    pytest.importorskip("rdkit")
    place, names = _molecule("CCO", 3)
    assert (place.shape, names) == ((3, 2), ["C", "C", "O"])
    assert _molecule("CCO", 4) is None
    assert _molecule("no molecule", 3) is None


def test_a_ring_is_drawn_as_a_ring_and_a_single_node_at_all():
    ring = torch.tensor([range(6), [*range(1, 6), 0]])
    place = _spectral(ring, 6)
    torch.testing.assert_close(place.norm(dim=1), torch.full((6,), 3**-0.5).double())
    assert _spectral(torch.zeros(2, 0).long(), 1).tolist() == [[0, 0]]


def test_refuses():
    with pytest.raises(ValueError, match="num_graphs is 0"):
        PromptReport(0)
    with pytest.raises(ValueError, match="graphs is empty"):
        draw_prompts([])
    with pytest.raises(TypeError, match="Classification has no prompts"):
        run([PromptReport()], task=Classification(GraphClassifier(3, 2), 2))
