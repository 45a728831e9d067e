"""Every example runs without a warning and beats the baseline that it prints, in less than a minute."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def run(path, folder):
    """Output of an example that says nothing on stderr and takes less than a minute of processor time."""

    def seconds():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    start = seconds()
    done = subprocess.run([sys.executable, str(path)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no warning and no notice
    assert seconds() - start < 60
    assert "baseline" in done.stdout
    return done.stdout


@pytest.mark.slow  # some twenty seconds each
@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.stem != "digits"], ids=lambda path: path.stem)
def test_beats_its_baseline_without_a_warning(path, tmp_path):
    output = run(path, tmp_path)
    lines = output.splitlines()
    numbers = [[float(word) for word in re.findall(r"\d+\.\d+", line)] for line in lines]
    if path.stem == "own_data_and_network":
        assert numbers[-1][0] > 0.9 > numbers[-1][1]
    if path.stem == "streaming_links":
        table = [[float(word) for word in line.split()] for line in lines[2:-1]]
        assert sum(row[0] for row in table) == 600  # no line of the file is lost, none read in halves
        assert all(happened > other for _, happened, other, *_ in table)
        assert all(found > usual + 0.2 for *_, found, usual in table)
    if path.stem == "own_events":
        ours, popular = numbers[-1]
        assert ours > 2 * popular > 0
    if path.stem == "plain_pytorch":
        accuracy, guessed = numbers[-1]
        assert accuracy > 0.6 > 3 * guessed
    if path.stem == "patch_a_model":
        (accuracy, guessed), (attribution, *_), relevance, *_ = numbers
        assert accuracy > 0.95 > guessed
        assert relevance[0] > attribution + 0.2
        assert min(relevance) > 0.9
        assert (tmp_path / "patched.png").stat().st_size > 10_000
    if path.stem == "deblur_with_a_learned_prior":
        (restored, measured), (first, last), (clean, little, much) = (numbers[0], numbers[1], numbers[2][-3:])
        assert restored > measured + 2
        assert last < 0.05 * first
        assert clean < little < much
        assert (tmp_path / "deblurred.png").stat().st_size > 10_000
    if path.stem == "forecast_csv":
        reached, usual = numbers[0]
        assert reached < usual - 1
        assert len((tmp_path / "forecasts.csv").read_text().splitlines()) == 15
        assert (tmp_path / "forecasts.png").stat().st_size > 10_000
    if path.stem == "language_model":
        reached, alone = numbers[0]
        assert reached < 3 < 10 < alone
    if path.stem == "two_optimizers":
        (_, right, alone), (_, still_right, against), (most, half) = numbers[:3]
        assert min(right, still_right) > 0.75 > 3 * most
        assert alone > 0.8 > 0.7 > against  # the critic is right about plain features and lost with hidden ones
        assert half < 0.6
        assert output.split()[-1] == "True"
    if path.stem == "own_callback":
        accuracy, at_once = numbers[1]
        assert accuracy > 0.85
        assert accuracy > at_once + 0.03
        assert output.split()[-1] == "True"  # the resumed run equals the uninterrupted one


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_is_short_and_says_what_it_is(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 100
    assert text.startswith('"""')
    assert "filterwarnings" not in text  # `quiet_lightning` knows what concerns nobody; the rest is shown
