"""The experiment runner: kept rows, records, report, command line, with small experiments that cost nothing."""

import contextlib
import importlib.util
import io
import json
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

import graphseq.bench.records.files as records_module
from graphseq.bench import experiments, load_experiment
from graphseq.bench.command import main
from graphseq.bench.docstrings import arxiv_id, module_docstrings
from graphseq.bench.experiment import Check, Conclusion, Experiment, SkipCell
from graphseq.bench.records.files import finite, read_records, write_json
from graphseq.bench.records.report import print_record, results_markdown, verdict_sentence
from graphseq.bench.records.rows import RowFile, default_state_dir, fingerprint, plain
from graphseq.bench.records.table import print_table
from graphseq.bench.runner import run_experiment

ROOT = Path(__file__).parents[2]
ARMS = ("method", "baseline", "peer")


class Fake(Experiment):
    """A method against a baseline, on numbers that are made up.

    Rule: reproduced if the method's mean is above the baseline's.

    Example:
        >>> Fake().name
        'effect.fake'
    """

    name, kind = "effect.fake", "effect"

    def __init__(self, stop_at: int | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.stop_at, self.error = stop_at, error
        self.ran: list[dict] = []

    def cells(self, scale, seeds):
        return [{"arm": arm, "seed": seed} for arm in ARMS for seed in range(seeds)]

    def run(self, cell, scale):
        if cell["arm"] == "peer":
            raise SkipCell("peer-package is not installed")
        if len(self.ran) == self.stop_at:
            raise self.error("stopped on purpose")
        self.ran.append(dict(cell))
        # depends on the global generators, as careless experiments do
        draw = random.random() + float(torch.rand(())) + float(np.random.rand())
        return {"accuracy": draw + (cell["arm"] == "method") * 10, "sizes": (1, 2)}

    def conclude(self, rows):
        means = {arm: np.mean([row["accuracy"] for row in rows if row["arm"] == arm]) for arm in ARMS[:2]}
        gain = means["method"] - means["baseline"]
        checks = [Check("the method is above the baseline", gain, 0.0, gain > 0)]
        return Conclusion("reproduced" if gain > 0 else "not reproduced", checks, [{"gain": gain, **means}])

    def draw(self, record, axes):
        axes.plot([row["accuracy"] for row in record["rows"] if "skipped" not in row])


class Failing(Fake):
    """Nothing here holds."""

    name = "effect.failing"

    def conclude(self, rows):
        return Conclusion("not reproduced", [Check("the moon is made of cheese", 0, 1, False)])


class Fails(Failing):
    """The same, concluding without a baseline."""


def without_date(record):
    return {**record, "environment": {key: v for key, v in record["environment"].items() if key != "date"}}


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHSEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(variable, os.environ.get(variable, "1"))  # put back afterwards


def test_record_holds_rows_checks_and_environment():
    record = run_experiment(Fake(), seeds=2)
    assert list(record) == [
        "name", "kind", "scale", "seeds", "verdict", "rule", "rows", "checks", "table", "environment", "source",
    ]  # fmt: skip
    assert record["verdict"] == "reproduced"
    assert record["checks"] == [
        {"claim": "the method is above the baseline", "value": record["table"][0]["gain"], "bound": 0.0, "holds": True}
    ]
    assert [(row["arm"], row["seed"]) for row in record["rows"]] == [(arm, s) for arm in ARMS for s in (0, 1)]
    assert record["rows"][0]["sizes"] == [1, 2]
    assert record["rows"][-1] == {"arm": "peer", "seed": 1, "skipped": "peer-package is not installed"}
    assert record["environment"]["torch"] == torch.__version__
    assert record["environment"]["threads"] == 1
    assert "Rule: reproduced if" in record["rule"]
    assert json.loads(json.dumps(record)) == record


@settings(deadline=None)  # the first example reads the sources for the fingerprint
@given(stop_at=st.integers(0, 5))
def test_interrupted_run_continues_to_the_identical_record(stop_at, tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    whole = run_experiment(Fake(), seeds=3, state_dir=folder / "whole")
    first = Fake(stop_at)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(first, seeds=3, state_dir=folder / "stopped")
    assert len(first.ran) == stop_at
    second = Fake()
    continued = run_experiment(second, seeds=3, state_dir=folder / "stopped")
    assert first.ran + second.ran == [cell for cell in Fake().cells("default", 3) if cell["arm"] != "peer"]
    assert without_date(continued) == without_date(whole)


def test_more_seeds_run_only_the_new_cells():
    run_experiment(Fake(), seeds=2)
    more = Fake()
    run_experiment(more, seeds=3)
    assert more.ran == [{"arm": "method", "seed": 2}, {"arm": "baseline", "seed": 2}]


def test_interruption_says_what_is_kept_and_how_to_continue(capsys):
    with pytest.raises(KeyboardInterrupt):
        run_experiment(Fake(2), seeds=2)
    message = capsys.readouterr().err
    assert "[1/6] effect.fake arm=method seed=0: " in message
    assert f"interrupted; 2 of 6 cells are kept in {default_state_dir() / 'effect.fake.jsonl'}" in message
    assert "the same command continues" in message
    run_experiment(Fake(), seeds=2)
    assert "2 of 6 cells are taken from" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_half_written_line_is_ignored_and_run_again(cut):
    whole = run_experiment(Fake(), seeds=2)
    file = default_state_dir() / "effect.fake.jsonl"
    lines = file.read_bytes()
    assert len(lines.splitlines()) == 4
    file.write_bytes(lines[:-cut])
    again = Fake()
    assert without_date(run_experiment(again, seeds=2)) == without_date(whole)
    # without its line break the last line is still whole; otherwise the last cell runs again
    assert again.ran == ([] if cut == 1 else [{"arm": "baseline", "seed": 1}])
    third = Fake()
    run_experiment(third, seeds=2)
    assert third.ran == []


SLOW = """
import os, signal, time
from pathlib import Path

from graphseq.bench import Effect



def run(cell, scale, effect):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it does not end by a signal of its own
    Path(f"worker{os.getpid()}").touch()
    time.sleep(100)


effect = Effect(name="effect.slow", source="none", protocol="", arms={"one": {"x": 0}, "other": {"x": 1}}, run=run)
"""


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,  # what no handler sees
        signal.SIGTERM,
        signal.SIGINT,
    ],
)
@pytest.mark.slow  # three processes import torch
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    (tmp_path / "slow.py").write_text(SLOW)
    code = "import sys; from graphseq.bench.command import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "slow.py", "--processes", "2", "--state-dir", "state"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    started = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 90
        while len(list(tmp_path.glob("worker*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(list(tmp_path.glob("worker*"))) == 2
        started.send_signal(how)  # to this process alone
        started.communicate(timeout=15)  # stderr ends when the last worker that has inherited it ends
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)


def test_foreign_lines_are_ignored(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xff\xfe\n[]\n{"context": 1}\n"text"\n\n{"context": "x", "cell": {}, "row": 3}\nnull\n')
    kept = RowFile(file, {"scale": "quick"})
    kept.append({"seed": 0}, {"seed": 0, "value": math.inf})
    assert RowFile(file, {"scale": "quick"}).get({"seed": 0}) == {"seed": 0, "value": math.inf}
    assert RowFile(file, {"scale": "full"}).get({"seed": 0}) is None


MODULE = '''
{head}from graphseq.bench.experiment import Conclusion, Experiment


class Written(Experiment):
    """Written to a file by a test."""

    name, kind = "speed.written", "speed"
    ran = 0

    def cells(self, scale, seeds):
        return [{{"size": 1}}]

    def run(self, cell, scale):
        type(self).ran += 1
        return {{"seconds": {value}}}

    def conclude(self, rows):
        return Conclusion(None, table=rows)
'''


def written(folder, value, head=""):
    file = folder / "written_experiment.py"
    file.write_text(MODULE.format(value=value, head=head))
    spec = importlib.util.spec_from_file_location("written_experiment", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["written_experiment"] = module
    spec.loader.exec_module(module)
    return module.Written()


def test_changed_source_makes_rows_stale(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which Python tells by whole seconds and the file's size
    first = written(tmp_path, 1)
    assert run_experiment(first)["rows"] == [{"size": 1, "seconds": 1}]
    same = written(tmp_path, 1)
    assert run_experiment(same)["rows"] == [{"size": 1, "seconds": 1}]
    assert same.ran == 0
    changed = written(tmp_path, 2)
    assert run_experiment(changed)["rows"] == [{"size": 1, "seconds": 2}]
    assert changed.ran == 1


def test_changed_measured_module_makes_rows_stale(tmp_path, monkeypatch):
    """A module that is imported by a module that the experiment imports counts."""
    monkeypatch.syspath_prepend(str(tmp_path))
    measured = tmp_path / "measured_module.py"
    measured.write_text("speed = 1\n")
    (tmp_path / "between_module.py").write_text(
        "def late():\n    from measured_module import speed\n    print(speed)\n"
    )
    (tmp_path / "beside_module.py").write_text("x = 1\n")
    experiment = written(tmp_path, 1, head="import between_module\n")
    before = fingerprint(experiment)
    (tmp_path / "beside_module.py").write_text("x = 2\n")
    assert fingerprint(experiment) == before
    measured.write_text("speed = 2\n")
    assert fingerprint(experiment) != before


@pytest.mark.parametrize("change", [{"scale": "quick"}, {"threads": 2}, {"fresh": True}])
def test_rows_of_another_setting_are_not_used(change):
    run_experiment(Fake(), seeds=1)
    again = Fake()
    run_experiment(again, seeds=1, **change)
    assert len(again.ran) == 2


def test_threads_are_set_and_put_back():
    before = torch.get_num_threads()
    record = run_experiment(Fake(), seeds=1, threads=2)
    assert record["environment"]["threads"] == 2
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_several_processes_give_the_record_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    records = [
        run_experiment(
            load_experiment("effect.l2r_selection_bias"),
            scale="quick",
            processes=count,
            state_dir=tmp_path / str(count),
        )
        for count in (1, 2)
    ]
    for one, other in zip(*(record["rows"] for record in records), strict=True):
        near = {key: pytest.approx(x, rel=1e-4) if isinstance(x, float) else x for key, x in other.items()}
        assert one == near
    assert [line["arm"] for line in records[0]["table"]] == [line["arm"] for line in records[1]["table"]]


def test_speeds_are_taken_one_by_one():
    class Speed(Experiment):
        name, kind = "speed.nothing", "speed"
        cells = run = conclude = None

    with pytest.raises(ValueError, match="processes is 2.*speed"):
        run_experiment(Speed(), processes=2)


def test_all_skipped_gives_a_record_without_verdict():
    class Skipped(Fake):
        def cells(self, scale, seeds):
            return [{"arm": "peer", "seed": 0}]

    record = run_experiment(Skipped())
    assert record["verdict"] is None
    assert record["rows"] == [{"arm": "peer", "seed": 0, "skipped": "peer-package is not installed"}]


def test_a_record_says_why_there_is_no_verdict():
    """Without a rule none is asked for; with one, a claim lacks rows."""
    record = {"kind": "effect", "verdict": None, "rows": [], "checks": [{"claim": "x", "value": 1.0, "holds": True}]}
    assert verdict_sentence(record) == "No verdict is asked for: the one claim holds."
    for checks in ([{"claim": "x", "value": None, "holds": False}], []):
        assert verdict_sentence({**record, "checks": checks}).startswith("No verdict for too little could run: ")


def test_wrong_experiments_are_refused():
    class Twice(Fake):
        def cells(self, scale, seeds):
            return [{"seed": 0}, {"seed": 0}]

    class Live(Fake):
        def run(self, cell, scale):
            return {"model": object()}

    class Clash(Fake):
        def run(self, cell, scale):
            return {"seed": cell["seed"] + 1}

    with pytest.raises(ValueError, match="more than once"):
        run_experiment(Twice())
    with pytest.raises(TypeError, match="effect.fake.*JSON.*object"):
        run_experiment(Live())
    with pytest.raises(ValueError, match="effect.fake.*values for seed"):
        run_experiment(Clash())
    with pytest.raises(TypeError, match="'fake'.*'effect'"):
        type("Unnamed", (Fake,), {"name": "fake"})
    with pytest.raises(ValueError, match="verdict is 'yes'"):
        Conclusion("yes")
    with pytest.raises(ValueError, match="scale is 'tiny'"):
        run_experiment(Fake(), scale="tiny")
    with pytest.raises(ValueError, match="seeds is 0"):
        run_experiment(Fake(), seeds=0)


def test_numbers_of_numpy_and_torch_become_plain():
    value = {"a": np.float32(0.5), "b": torch.tensor(3), "c": np.bool_(True), "d": (1, math.nan)}
    made = plain(value, "the row")
    assert made["a"] == 0.5
    assert made["b"] == 3
    assert made["c"] is True
    assert math.isnan(made["d"][1])
    assert finite(made)["d"] == [1, None]
    with pytest.raises(TypeError, match="^the row .*JSON"):
        plain({"x": torch.ones(2)}, "the row")


def test_failing_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    file = tmp_path / "record.json"
    write_json(file, {"old": 1})
    with pytest.raises(TypeError):
        write_json(file, {"new": object()})

    def full_disk(handle):
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(records_module.os, "fsync", full_disk)
        with pytest.raises(OSError, match="no space left"):
            write_json(file, {"new": 1})
    assert json.loads(file.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    write_json(file, {"new": math.nan})
    assert json.loads(file.read_text()) == {"new": None}


# command line


def test_command_writes_record_and_figure(tmp_path, capsys):
    assert main(["--seeds", "2", "--json", "out/one.json"], [Fake()]) == 0
    record = json.loads((tmp_path / "out/one.json").read_text())
    assert record["name"] == "effect.fake"
    assert (tmp_path / "out/one.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr()
    assert "verdict: reproduced" in shown.out
    assert "peer-package is not installed" in shown.out
    assert "\x1b" not in shown.out
    assert shown.err.count("\n") == 6


def test_command_writes_a_list_for_several_and_one_file_each(tmp_path, capsys):
    assert main(["--seeds", "1", "--json", "all.json", "--out-dir", "results"], [Fake(), Failing()]) == 0
    assert [record["name"] for record in json.loads((tmp_path / "all.json").read_text())] == [
        "effect.fake",
        "effect.failing",
    ]
    assert {path.name for path in tmp_path.glob("all*")} == {
        "all.json",
        "all_effect.fake.png",
        "all_effect.failing.png",
    }
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "effect.failing.json",
        "effect.failing.png",
        "effect.fake.json",
        "effect.fake.png",
    ]


def test_command_status(tmp_path, capsys, monkeypatch):
    assert main(["--seeds", "1"], [Failing()]) == 0  # a claim that fails is a result
    assert main(["--seeds", "1", "--fresh", "--json", "x.json"], [Fake(1, RuntimeError), Failing()]) == 1
    assert [record["name"] for record in json.loads(Path("x.json").read_text())] == ["effect.failing"]
    assert "effect.fake stopped with an error" in capsys.readouterr().err
    assert main(["--seeds", "1", "--fresh"], [Fake(1)]) == 130
    assert main(["--seeds", "1", "--fresh"], [Fake(1, SIGTERMException)]) == 143
    assert main(["speed.segmant"]) == 2
    assert f"no folder experiments/ in {tmp_path}" in capsys.readouterr().err
    assert main(["mine.py"]) == 2
    assert "no file mine.py" in capsys.readouterr().err
    folder("graphs/segment.py", "speed = 1\n")
    assert main(["speed.segmant"]) == 2
    assert "did you mean speed.segment" in capsys.readouterr().err
    for wrong in ([], ["--seeds", "0"], ["--scale", "tiny"], ["--threads", "x"], ["--json", str(tmp_path), "speed.*"]):
        assert main(wrong) == 2
    assert main(["--help"]) == 0


def test_list_imports_no_torch():
    code = (
        "import sys; from graphseq.bench.command import main; main(['--list']); main(['nothing']);"
        "assert not {'torch', 'lightning', 'matplotlib', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert all(name in done.stdout for name in experiments(ROOT / "experiments"))


def folder(name, text):
    """Write a file below experiments/ in the current folder."""
    file = Path("experiments", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'"""What {name} compares."""\n\n{text}')
    return file


def test_every_file_of_the_repository_defines_the_experiment_of_its_name(monkeypatch):
    monkeypatch.chdir(ROOT)
    known = experiments()
    assert {"effect.pres", "speed.segment"} <= set(known)
    for name in known:
        assert load_experiment(name).name == name


def test_experiments_are_those_of_the_folder(capsys):
    assert experiments() == {}
    one = folder("graphs/one.py", "effect = 1\nspeed: int = 2\n")
    folder("graphs/peer.py", "def speed():\n    effect = 1\n    return effect\n")
    assert experiments() == {"effect.one": one, "speed.one": one}
    assert main(["--list"]) == 0
    assert "effect.one  What graphs/one.py compares." in capsys.readouterr().out
    folder("loading/one.py", "speed = 1\n")
    with pytest.raises(ValueError, match=r"speed\.one"):
        experiments()


def test_an_experiment_in_a_file_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "own_written.py"
    text = MODULE.format(value=3, head="").replace("speed.written", "speed.own_written")
    file.write_text(text + "\n\nspeed = Written()\n")
    assert main([str(file), "--json", "own.json"]) == 0
    assert json.loads(Path("own.json").read_text())["rows"] == [{"size": 1, "seconds": 3}]
    assert load_experiment(str(file)) is pickle.loads(pickle.dumps(load_experiment(str(file))))
    for name, body, named in (
        ("own_empty.py", "x = 1\n", "neither"),
        ("own_other.py", text + "\n\nspeed = Written()\n", r"speed\.own_other"),
        ("json.py", "speed = 1\n", "json"),
    ):
        (tmp_path / name).write_text(body)
        with pytest.raises(ValueError, match=named):
            load_experiment(str(tmp_path / name))


def test_unknown_experiment_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="experiments/"):
        load_experiment("speed.nothing")
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=r"speed\.nothing"):
        load_experiment("speed.nothing")


# printing and report


def shown(record, width, terminal=False):
    stream = io.StringIO()
    print_record(record, Console(file=stream, width=width, force_terminal=terminal, color_system=None))
    return stream.getvalue()


def wide_record():
    record = run_experiment(Fake(), seeds=1)
    record["table"] = [
        {"dataset": name, "arm": "a method with a long name", **{f"measure {i} of many": 1234.5 + i for i in range(9)}}
        for name in ("PROTEINS", "an-unbroken-name-of-a-data-set-that-is-long")
    ]
    record["checks"] = [{"claim": "word " * 60, "value": 0.123456, "bound": "at least 2.0", "holds": False}]
    return record


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_tables_fit_and_numbers_stay_whole(width, terminal):
    text = shown(wide_record(), width, terminal)
    assert max(map(len, text.splitlines())) <= width
    for index in range(9):
        assert f"{1234.5 + index:.4g}" in text
    assert "0.1235" in text
    assert "…" not in text
    if not terminal:
        assert all(line == line.rstrip() for line in text.splitlines())
        assert "─" not in text


@given(
    st.lists(
        st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=70) | st.floats() | st.none(), max_size=7),
        max_size=4,
    ),
    st.integers(40, 130),
)
def test_any_table_prints_and_never_wraps_numbers(rows, width):
    rows = [{f"c{index}": value for index, value in enumerate(row.values())} for row in rows]
    stream = io.StringIO()
    print_table(rows, Console(file=stream, width=width))
    numeric = [row["c0"] for row in rows if isinstance(row.get("c0"), float) and 1 <= row["c0"] < 9999]
    if numeric and all(isinstance(row.get("c0", 1.0), float) for row in rows):
        assert all(f"{value:.4g}" in stream.getvalue() for value in numeric)


def test_continued_tables_begin_with_the_columns_that_tell_rows_apart():
    rows = [{"data": data, "arm": arm, **{f"figure {i}": 1.5 for i in range(9)}} for data in "ab" for arm in "xy"]
    stream = io.StringIO()
    print_table(rows, Console(file=stream, width=60))
    starts = [tuple(line.split()[:2]) for line in stream.getvalue().splitlines()]
    assert starts.count(("data", "arm")) >= 2
    assert all(starts.count((data, arm)) == starts.count(("data", "arm")) for data in "ab" for arm in "xy")


def test_unwrapped_rows_are_single_lines():
    stream = io.StringIO()
    print_table([{"name": "a", "text": "word " * 50}] * 3, Console(file=stream, width=80), wrap=False)
    assert len(stream.getvalue().splitlines()) == 4


def test_report_is_deterministic_and_complete(tmp_path, capsys):
    main(["--seeds", "2", "--out-dir", "results", "--report"], [Failing(), Fake()])
    pages = [tmp_path / "RESULTS.md", *(tmp_path / "results" / f"effect.{name}.md" for name in ("failing", "fake"))]
    first = [page.read_bytes() for page in pages]
    for page in pages:
        page.unlink()
    for path in sorted((tmp_path / "results").glob("*.json"), reverse=True):
        os.utime(path)
    assert main(["--report"]) == 0
    assert [page.read_bytes() for page in pages] == first
    text, failing, fake = (page.decode() for page in first)
    records = read_records(tmp_path / "results")
    assert text == results_markdown(records[::-1], tmp_path / "results", tmp_path)
    assert text.index("(results/effect.failing.md)") < text.index("(results/effect.fake.md)")
    assert (
        "| Nothing here holds. | Not reproduced: the one claim does not hold. | [figure](results/effect.failing.png) |"
        in text
    )
    assert "| Reproduced: the one claim holds. |" in text
    assert "`graphseq bench effect.fake`" in text
    assert len(text.splitlines()) == 8
    assert "Rule: reproduced if the method's mean" in fake
    assert ">>> Fake()" not in fake
    assert "**Not reproduced: the one claim does not hold.**" in failing
    assert "| the moon is made of cheese | 0 | 1 | no |" in failing
    assert "](effect.fake.png)" in fake
    assert fake.index("**Reproduced") < fake.index("](effect.fake.png)") < fake.index("## Protocol")
    assert "| arm=peer seed=0 and 1 more | peer-package is not installed |" in fake
    assert torch.__version__ in fake


def test_a_rerun_stands_beside_the_record_and_changes_no_verdict(tmp_path):
    assert main(["--seeds", "2", "--out-dir", "results"], [Failing()]) == 0
    before = json.loads((tmp_path / "results/effect.failing.json").read_text())
    for _ in range(2):  # the second takes the place of the first
        assert main(["--seeds", "3", "--out-dir", "results", "--only", "arm=method", "--report"], [Fails()]) == 0
    after = json.loads((tmp_path / "results/effect.failing.json").read_text())
    (rerun,) = after.pop("reruns")
    assert after == before
    assert {row["arm"] for row in rerun["rows"]} == {"method"}
    assert "## Rerun of arm=method" in (tmp_path / "results/effect.failing.md").read_text()
    assert main(["--out-dir", "elsewhere", "--only", "arm=method"], [Fails()]) == 1


def test_a_rerun_without_any_result_is_not_put_beside_the_record(tmp_path, capsys):
    assert main(["--seeds", "2", "--out-dir", "results"], [Fake()]) == 0
    before = (tmp_path / "results/effect.fake.json").read_bytes()
    assert main(["--seeds", "2", "--out-dir", "results", "--only", "arm=peer"], [Fake()]) == 0
    assert (tmp_path / "results/effect.fake.json").read_bytes() == before
    assert "no cell of arm=peer has a result; the record of effect.fake stays as it was" in capsys.readouterr().out


def test_notes_of_a_record_and_of_a_rerun_stand_in_the_report(tmp_path):
    assert main(["--seeds", "2", "--out-dir", "results"], [Failing()]) == 0
    assert main(["--seeds", "2", "--out-dir", "results", "--only", "arm=method"], [Fails()]) == 0
    file = tmp_path / "results/effect.failing.json"
    record = json.loads(file.read_text())
    record["notes"], record["reruns"][0]["notes"] = ["read twice."], ["line withdrawn: a share."]
    file.write_text(json.dumps(record))
    assert main(["--report"]) == 0
    whole, _, rerun = (tmp_path / "results/effect.failing.md").read_text().partition("## Rerun")
    assert "\nNote: read twice.\n" in whole
    assert "\nNote: line withdrawn: a share.\n" in rerun


def test_report_refuses_what_is_no_record(tmp_path, capsys):
    assert main(["--report"]) == 2
    assert "there are no records" in capsys.readouterr().err
    (tmp_path / "results").mkdir()
    (tmp_path / "results/effect.half.json").write_text('{"name": ')
    assert main(["--report"]) == 2
    assert "is not JSON" in capsys.readouterr().err
    (tmp_path / "results/effect.half.json").write_text('{"name": "other"}')
    assert main(["--report"]) == 2
    assert "is not the record of 'effect.half'" in capsys.readouterr().err
    assert not (tmp_path / "RESULTS.md").exists()


def test_docstrings_are_read_from_source(tmp_path):
    file = tmp_path / "module.py"
    file.write_text('X = 1\n"""A constant."""\n\ndef f():\n    """A function.\n\n    More."""\n\nclass C:\n    pass\n')
    assert module_docstrings(file) == {"X": "A constant.", "f": "A function.\n\nMore.", "C": ""}
    assert [arxiv_id(text) for text in ("arXiv:2411.03884", "https://arxiv.org/abs/1810.00826v3", "none")] == [
        "2411.03884",
        "1810.00826",
        "",
    ]
