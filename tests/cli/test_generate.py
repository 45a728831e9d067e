from pathlib import Path

import pytest
import torch

from graphseq.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
CHARACTERS = str(CONFIGS / "language" / "lstm_characters.yaml")
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=20", "--trainer.limit_val_batches=1"]
SHORT += ["--trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with one short run of the embedded config."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", CHARACTERS, *SHORT]) == 0
    return folder


@pytest.fixture
def text(trained, monkeypatch, capsys):
    """Runs ``graphseq generate`` in that folder."""
    monkeypatch.chdir(trained)

    def run(*options, status=0):
        capsys.readouterr()
        assert main(["generate", *options]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return run


def test_text_is_a_function_of_the_seed(text):
    options = ("--ckpt_path", "last", "--prompt", "the ", "--length", "80")
    first = text(*options)
    assert first.startswith("the ")
    assert len(first) == 4 + 80 + 1  # and the line end of print
    assert text(*options) == first
    assert text(*options, "--seed", "1") != first
    greedy = text(*options, "--temperature", "0")
    assert text(*options, "--temperature", "0", "--seed", "1") == greedy
    assert text(*options, "--top_k", "1") == greedy


def test_every_way_to_name_the_checkpoint(text, trained):
    (path,) = trained.rglob("last.ckpt")
    options = ("--length", "30")
    expected = text("--ckpt_path", str(path), *options)
    assert text("--ckpt_path", "last", *options) == expected
    assert text("--ckpt_path", "last", "--config", CHARACTERS, *options) == expected
    saved = str(path.parent.parent / "config.yaml")
    assert text("--ckpt_path", "best", "--config", saved, *options) == expected
    assert expected.startswith("\n")


def test_the_data_are_not_needed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = tmp_path / "words.txt"
    words.write_text("the cat sees the dog\n" * 60)
    (tmp_path / "words.yaml").write_text(
        Path(CHARACTERS).read_text().split("data:")[0] + "data:\n  class_path: graphseq.data.WordDataModule\n"
        f"  init_args: {{path: {words}, length: 8, batch_size: 8}}\n"
    )
    assert main(["fit", "--config", "words.yaml", *SHORT]) == 0, capsys.readouterr().err
    words.unlink()
    capsys.readouterr()
    assert main(["generate", "--ckpt_path", "last", "--prompt", "the cat", "--length", "9"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("the cat ")
    assert "<unk>" not in printed
    assert set(printed.split()) <= {"the", "cat", "sees", "dog"}
    assert main(["generate", "--ckpt_path", "last", "--prompt", "the bird"]) == 1
    assert "'bird'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--ckpt_path", "last", "--prompt", "the Q%"], "'Q', '%'"),
        (["--ckpt_path", "last", "--prompt", ""], "prompt ''"),
        (["--ckpt_path", "last", "--temperature", "-1"], "temperature is -1"),
        (["--ckpt_path", "last", "--top_k", "0"], "top_k is 0"),
        (["--ckpt_path", "last", "--length", "-3"], "length is -3"),
        (["--ckpt_path", "last", "--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_refused(options, message, text):
    assert message in text(*options, status=1)


def test_wrong_usage(text):
    text("--length", "3", status=2)
    text("--ckpt_path", "last", "--length", "x", status=2)


def test_without_a_run_or_with_several(tmp_path, monkeypatch, capsys, trained):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--ckpt_path", "last"]) == 1
    assert "has none" in capsys.readouterr().err
    (path,) = trained.rglob("last.ckpt")
    for name in ("first", "second"):
        folder = tmp_path / "runs" / name / "version_0" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "last.ckpt").write_bytes(path.read_bytes())
    assert main(["generate", "--ckpt_path", "last"]) == 1
    assert "first, second" in capsys.readouterr().err


def test_a_checkpoint_of_another_task(tmp_path, capsys):
    from graphseq.data import SyntheticSequencesDataModule
    from graphseq.models import SequenceTagger
    from graphseq.tasks import LanguageModeling, SequenceTagging
    from tests.reliability.runs import trainer

    data = SyntheticSequencesDataModule(50)
    run = trainer(max_epochs=1)
    run.fit(SequenceTagging(SequenceTagger(3, in_channels=1), 3), data)
    run.save_checkpoint(tmp_path / "tags.ckpt")
    assert main(["generate", "--ckpt_path", str(tmp_path / "tags.ckpt")]) == 1
    assert "SequenceTagging" in capsys.readouterr().err
    from graphseq.models import RecurrentLanguageModel

    ids = torch.randint(5, (8, 6))
    loader = torch.utils.data.DataLoader(ids, batch_size=4)
    run = trainer(max_epochs=1)
    run.fit(LanguageModeling(RecurrentLanguageModel(5), 5), loader)
    run.save_checkpoint(tmp_path / "bare.ckpt")
    assert main(["generate", "--ckpt_path", str(tmp_path / "bare.ckpt")]) == 1
    assert "no vocabulary" in capsys.readouterr().err


def test_a_misspelt_option_of_the_data_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", CHARACTERS, *SHORT, "--data.init_args.bach_size=3"]) == 2
    assert "bach_size" in capsys.readouterr().err
