"""Every config: build, fit a batch, test a batch, checkpoint, load."""

import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

import graphseq
from graphseq.cli import main
from graphseq.cli.training import GraphseqCLI

ROOT = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(path for path in ROOT.rglob("*.yaml") if path.parent.name != "trainer")
WITHOUT_FILES = {"gine_digits", "convnet_digits", "l2r_digits", "erm_digits", "l2r_motif", "erm_motif", "snn_digits"}
WITHOUT_FILES |= {"lstm_characters", "gru_synthetic", "regenn_drivers", "graph_rnn_reber", "pruned_lstm_reber"}
WITHOUT_FILES |= {"pointer_hull", "pointer_tour", "pointer_delaunay", "gla_recall"}
WITHOUT_FILES |= {"projection_head_digits", "projection_head_contrast_digits"}
WITHOUT_FILES |= {"lstm_adding", "lstm_copy", "lstm_carried", "lstm_pixels", "tcnca_recall"}
WITHOUT_FILES |= {"afkan_digits", "quadratic_digits", "p3d_motion", "ap_digits"}
WITHOUT_FILES |= {"poset_digits", "noise_mask_digits", "noise_mask_finetuning_digits", "transformer_sums"}
WITHOUT_FILES |= {"geometry_tanh_relu"}
WITHOUT_FILES |= {"cmusenet_synthetic"}
WITHOUT_FILES |= {"mgno_darcy", "fno_darcy"}
WITHOUT_FILES |= {"indirect_object", "mip_regression", "rnn_hypernet_digits"}
WITHOUT_FILES |= {"lpn_laplacian"}
# configs that differ from one that is run by default in the data, a layer or a number alone, or that another one runs
# before itself; they take a minute together
SIBLINGS = {"gpfplus_bbbp", "supt_bbbp", "scratch_bbbp", "probe_bbbp", "erm_bbbp", "l2r_bbbp", "gine_tox21", "gin_nci1"}
SIBLINGS |= {"gcn_actor", "convnet_cifar10", "afkan_fashion", "quadratic_fashion", "selfie_pretrain_cifar10"}
SIBLINGS |= {"noise_mask_digits", "pretrain_attrmask_molecules", "pretrain_links_cora", "gla_shakespeare"}
SIBLINGS |= {"lstm_wikitext", "pointer_tour", "gla_recall", "fno_darcy", "allinone_bbbp", "gpf_cora"}
SIBLINGS |= {"finetune_bbbp", "pretrain_contrast_cora", "selfie_finetune_cifar10", "erm_proteins", "base_collegemsg"}
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]


# sets that take long to parse -> one of the same kind, which other configs parse anyway
SMALLER = {"hiv": "bbbp", "tox21": "bbbp", "CIFAR10": "FashionMNIST"}


# exact solutions of 20,000 sets of points, and thousands of recordings, take seconds
FEWER = ["--data.num_train=200", "--data.num_val=20", "--data.num_test=20"]


# images of which other configs try the larger set
ON_DIGITS = {"afkan_fashion", "quadratic_fashion"}


def _smaller(path):
    if path.stem in ON_DIGITS:
        return ["--data.name=digits"]
    if path.stem.startswith("pointer_") or path.stem == "cmusenet_synthetic":
        return FEWER
    if path.parent.name == "operators":  # each sample is the solution of an equation
        return ["--data.num_train=10", "--data.num_val=2", "--data.num_test=2"]
    if path.stem == "graph_rnn_reber":
        return ["--data.num_strings=300"]
    if path.stem == "relief_bbbp":  # rollouts of a whole batch of validation take seconds
        return ["--data.num_shots=10", "--data.batch_size=10", "--data.eval_batch_size=16"]
    if path.stem.startswith("selfie_"):  # reading larger images several times takes seconds
        return ["--data.name=digits", "--data.num_shots=200"]
    if path.parent.name == "language":  # the whole of a batch, and of the text that is decoded, takes seconds
        return ["--data.batch_size=4", "--data.eval_batch_size=4"]
    (name,) = re.findall(r"\bname: (\w+)", path.read_text())[-1:] or [None]
    return [f"--data.name={SMALLER[name]}"] if name in SMALLER else []


def _by_weight(path):
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SIBLINGS else [])


@pytest.mark.parametrize("path", map(_by_weight, CONFIGS))
def test_runs(path, tmp_path, monkeypatch, capsys):
    if path.stem not in WITHOUT_FILES and not os.environ.get("GRAPHSEQ_MIRROR"):
        pytest.skip("GRAPHSEQ_MIRROR is not set: no real data here")
    if "MoleculeDataModule" in path.read_text():
        pytest.importorskip("rdkit", reason="molecules need rdkit")
    monkeypatch.chdir(tmp_path)
    short = [*SHORT, "--trainer.accelerator=cpu"]
    for earlier in re.findall(r"path: runs/(\w+)/version_0/", path.read_text()):  # a run that this config builds on
        (config,) = (other for other in CONFIGS if other.stem == earlier)
        assert main(["fit", "--config", str(config), *short, *_smaller(config)]) == 0, capsys.readouterr().err
    built = []
    run = GraphseqCLI._run_subcommand
    monkeypatch.setattr(GraphseqCLI, "_run_subcommand", lambda cli, name: (built.append(cli), run(cli, name)))
    assert main(["fit", "--config", str(path), *short, *_smaller(path)]) == 0, capsys.readouterr().err
    checkpoint = next((tmp_path / "runs" / path.stem).rglob("last.ckpt"))
    task = graphseq.load(checkpoint)
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name, value in task.state_dict().items():  # a frozen part is a digest of its weights
        assert torch.equal(value, saved[name]) if isinstance(value, torch.Tensor) else value == saved[name], name
    # with the data that are read already: `graphseq test` would parse and read again, which takes half a second
    trainer = Trainer(accelerator="cpu", limit_test_batches=1, logger=False, enable_progress_bar=False)
    assert trainer.test(task, built[-1].datamodule, ckpt_path=str(checkpoint), verbose=False)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.yaml")), ids=lambda path: path.stem)
def test_style(path):
    """Full public paths, a first line that says what it is, no key twice, nothing that the data know."""
    text = path.read_text()
    assert text.startswith("# ")
    assert len(text.splitlines()) <= 40

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node, deep=False):
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice among {keys}"
        return yaml.SafeLoader.construct_mapping(loader, node, deep)

    Strict.add_constructor("tag:yaml.org,2002:map", lambda loader, node: mapping(loader, node, True))
    tree = yaml.load(text, Strict)
    for class_path in re.findall(r"class_path: ([\w.]+)", text):
        assert class_path.split(".")[0] in ("graphseq", "torch", "torch_geometric", "lightning"), class_path
        assert len(class_path.split(".")) == 3 or not class_path.startswith("graphseq"), class_path
    if path.parent.name == "trainer":
        assert set(tree) == {"trainer"}
    else:
        assert "in_channels" not in text
        assert tree["model"]["class_path"].startswith("graphseq.tasks.")
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", path.stem)
