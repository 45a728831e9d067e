"""Every command and number of the README is executed here."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from graphseq.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
PYTHON = [body for language, body in BLOCKS if language == "python"]
CONSOLE = [line[2:] for language, body in BLOCKS if language == "console" for line in body.splitlines()]
NUMBER = r"(\d\.\d+)-(\d\.\d+)"
# ranges, since another processor rounds sums differently, and epochs of training amplify it
TABLE = {
    name: tuple(map(float, numbers))
    for name, *numbers in re.findall(rf"^\| (GINE|without edges) \| {NUMBER} \| {NUMBER} \|", TEXT, re.MULTILINE)
}


def test_is_short():
    assert len(TEXT.splitlines()) <= 250, "move what only some readers need to docs/ or CONTRIBUTING.md"


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks(code, tmp_path, monkeypatch, capsys, recwarn):
    """Each runs without a warning; one that prints what guessing reaches is better, in the range of the text."""
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert not [str(warning.message) for warning in recwarn if not issubclass(warning.category, DeprecationWarning)]
    printed = re.search(r"(?:accuracy|precision) ([\d.]+), guessing ([\d.]+)", capsys.readouterr().out)
    assert (printed is None) == ("guessing" not in code)
    if printed:
        reached, guessed = map(float, printed.groups())
        assert reached > guessed + 0.2
        (given,) = re.findall(rf"{NUMBER}[^`]*?guessing[^`]*?```python\n{re.escape(code)}", TEXT)
        assert float(given[0]) <= reached <= float(given[1])


def test_short_config(tmp_path, monkeypatch):
    """The YAML block trains as it stands, but for its length."""
    monkeypatch.chdir(tmp_path)
    (text,) = (body for language, body in BLOCKS if language == "yaml")
    Path("mine.yaml").write_text(text)
    assert "graphseq." not in text
    assert main(["fit", "--config", "mine.yaml", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]) == 0


def test_command_lines(tmp_path, monkeypatch, capsys):
    """The commands in their order, in one folder; training is cut short by a fragment of the configs."""
    monkeypatch.chdir(tmp_path)
    commands = [line for language, body in BLOCKS if language == "bash" for line in body.strip().splitlines()]
    assert len(commands) == 6
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "graphseq"
        if arguments[0] == "fit":
            arguments += ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1"]
        assert main(arguments) == 0, f"{command}\n{capsys.readouterr().err}"
    assert (tmp_path / "runs/gine_digits/version_0/curves.png").exists()


def test_console_lines_are_real():
    """What installs is not run again here, but every target, extra and file that is named must exist."""
    makefile = (ROOT / "Makefile").read_text()
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert CONSOLE
    for line in CONSOLE:
        words = shlex.split(line)
        if words[0] == "make":
            assert f"\n{words[1]}:" in makefile
        for word in words:
            if word.startswith("configs/"):
                assert yaml.safe_load((ROOT / word).read_text())
            if word.startswith("torch=="):
                assert f"TORCH ?= {word}" in makefile
    for target in re.findall(r"`make (\w+)`", TEXT):
        assert f"\n{target}:" in makefile
    for extra in re.findall(r"graphseq\[(\w+)\]", TEXT):
        assert f"\n{extra} = [" in pyproject


def test_files_names_and_configs_that_are_mentioned_exist():
    import importlib

    for target in re.findall(r"\]\(((?!http)[^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    for room, name in re.findall(r"`(models|tasks|data|nn|core|ops)\.(\w+)`", TEXT):
        assert hasattr(importlib.import_module(f"graphseq.{room}"), name), f"{room}.{name}"
    for config in re.findall(r"`((?:graph|vision|tabular|temporal)/\w+)`", TEXT):
        assert (ROOT / "configs" / f"{config}.yaml").exists(), config


@pytest.mark.slow  # trains for half a minute
def test_first_result_is_what_the_readme_says(tmp_path):
    """`make run` prints the table of the README, and draws the figure."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "digits.py")], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    printed = {
        name: (float(clean), float(noisy))
        for name, clean, noisy in re.findall(r"^(GINE|without edges)\s+([\d.]+)\s+([\d.]+)", done.stdout, re.MULTILINE)
    }
    assert printed.keys() == TABLE.keys() == {"GINE", "without edges"}
    for name, (least_clean, most_clean, least_noisy, most_noisy) in TABLE.items():
        clean, noisy = printed[name]
        assert least_clean <= clean <= most_clean
        assert least_noisy <= noisy <= most_noisy
    assert done.stderr == ""  # no warning and no notice
    assert (tmp_path / "runs" / "digits.png").stat().st_size > 10_000
