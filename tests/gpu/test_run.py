"""The command that runs all of this: what it finds, puts first, leaves out and names; no GPU is needed."""

import json
import signal
import subprocess
import sys
import time

import pytest

from graphseq.bench import experiments
from graphseq.core import OptionalDependencyError
from tests.gpu import run


def test_every_speed_experiment_has_its_turn():
    assert set(run.plan()) == {name for name in experiments() if name.startswith("speed.")}
    assert run.plan()[0] == "speed.graph_loader"


def test_every_file_with_tests_for_a_gpu_is_found():
    folder, *files = run.gpu_test_files()
    assert (folder / "test_no_sync.py").exists()
    assert {"test_base.py", "test_negatives.py", "test_graph_store.py"} <= {path.name for path in files}


def test_cases_without_data_come_first():
    cells = [{"data": "NCI1"}, {"data": "generated like NCI1"}, {"data": "random"}, {"data": "wikipedia"}]
    assert [cell["data"] for cell in run.ordered(cells)] == ["generated like NCI1", "random", "NCI1", "wikipedia"]
    assert run.ordered([{"edges": 2}, {"edges": 1}]) == [{"edges": 2}, {"edges": 1}]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ModuleNotFoundError("No module named 'numba'", name="numba"), "numba"),
        (ModuleNotFoundError("No module named 'graphseq.x'", name="graphseq.x"), None),
        (ImportError("cannot import name 'x'"), None),
        (ValueError("wrong"), None),
    ],
)
def test_a_missing_package_is_told_from_a_fault(error, name):
    assert run.missing_module(error) == name


def test_a_missing_package_is_found_behind_other_errors():
    error = RuntimeError("no data")
    error.__cause__ = OptionalDependencyError("rdkit", "molecules")
    assert "rdkit" in run.missing_module(error)


@pytest.mark.parametrize(("found", "named"), [((99, 0), "older than 99.0"), ((0, 1), None)])
def test_an_old_torch_is_refused(monkeypatch, found, named):
    monkeypatch.setattr(run, "OLDEST", {"torch": found})
    problem = run.check("cpu")
    assert problem is None if named is None else named in problem


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(run, "OLDEST", {"no_such_package": (1, 0)})
    assert "no_such_package is not installed" in run.check("cpu")


def test_without_a_gpu_nothing_is_begun(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = subprocess.run([sys.executable, run.__file__, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "DEVICE=cpu" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_rows_are_on_disk_at_once_and_what_is_left_out_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "plan", lambda: ["speed.segment"])
    clock = iter(range(1000))
    monkeypatch.setattr(run.time, "time", lambda: float(next(clock)))
    assert run.run_rows(tmp_path, 4.0, "cpu") == 0
    rows = json.loads((tmp_path / "speed.segment.json").read_text())["rows"]
    left = json.loads((tmp_path / "left_out.json").read_text())
    assert 0 < len(rows) < 5
    assert len(rows) + len(left) == 132
    monkeypatch.undo()
    assert not run.summary(tmp_path)
    assert f"left out for want of time: {len(left)} rows of speed.segment" in capsys.readouterr().out
    monkeypatch.setattr(run, "plan", lambda: ["speed.segment"])
    assert run.run_rows(tmp_path, time.time() - 1, "cpu") == 0  # goes on: what is there is not measured again
    assert len(json.loads((tmp_path / "left_out.json").read_text())) == len(left)


def test_a_part_ends_with_the_process_that_started_it():
    code = "from tests.gpu import run; run.end_with_parent(); import time; time.sleep(100)"
    part = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True, cwd=run.ROOT)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            part.wait(0.5)
        part.stdin.close()  # as the end of this process would
        assert part.wait(20) == -signal.SIGKILL
    finally:
        part.kill()


def test_failures_and_skips_of_tests_are_told_apart(tmp_path, capsys):
    lines = [
        {"test": "a", "outcome": "passed", "reason": ""},
        {"test": "b", "outcome": "skipped", "reason": "numba is not installed"},
        {"test": "c", "outcome": "skipped", "reason": "Skipped: left out: the time for tests is spent"},
    ]
    file = tmp_path / "tests.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not run.summary(tmp_path)
    shown = capsys.readouterr().out
    assert "1 passed, 1 skipped, 1 left out" in shown
    assert "skipped 1: numba is not installed" in shown
    file.write_text(json.dumps({"test": "d", "outcome": "failed", "reason": "boom"}) + "\n")
    assert run.summary(tmp_path)
    assert "failed d" in capsys.readouterr().out
