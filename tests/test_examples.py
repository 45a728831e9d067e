"""Every example runs; examples/digits.py is run by tests/test_readme.py, with its numbers."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.stem != "digits"], ids=lambda path: path.stem)
def test_runs(path, tmp_path):
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if path.stem == "own_data_and_network":
        assert float(done.stdout.split()[-1]) < 0.3
    if path.stem == "streaming_links":
        table = [line.split() for line in done.stdout.splitlines()[2:-1]]
        assert sum(int(line[0]) for line in table) == 600  # no line of the file is lost, none read in halves
        assert all(float(happened) > float(other) for _, happened, other, _ in table)
    if path.stem == "plain_pytorch":
        losses = [float(line.split()[3]) for line in done.stdout.splitlines()]
        assert losses == sorted(losses, reverse=True)
    if path.stem == "language_model":
        assert float(done.stdout.splitlines()[0].split()[-1]) < 3
    if path.stem == "two_optimizers":
        alone, against = (float(line.split()[-1]) for line in done.stdout.splitlines()[:2])
        assert alone > 0.9 > 0.75 > against  # the critic is right about plain features and lost with hidden ones
        assert done.stdout.split()[-1] == "True"
    if path.stem == "own_callback":
        assert float(done.stdout.splitlines()[0].split()[-1]) > 0.85
        assert done.stdout.split()[-1] == "True"  # the resumed run equals the uninterrupted one


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_is_short_and_says_what_it_is(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 95
    assert text.startswith('"""')
