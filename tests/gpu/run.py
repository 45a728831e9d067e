"""``make gpu``: tests marked ``gpu``, then the GPU rows of every speed experiment, in a time that is given.

Needs no installation and no network: any Python with torch >= 2.11 and PyG >= 2.8. Pure-Python packages that are
missing there come from ``.gpu-wheels/``, which ``make gpu-wheels`` fills beforehand; a test or row that needs anything
else that is missing is skipped by name. What is done is on disk at once: each test in ``<out>/tests.jsonl``, each row
in ``<out>/<experiment>.json``. The two parts run in processes of their own, so that one that hangs or loses the GPU
costs no more than its time; when the time is spent nothing new is begun, and what was left out is named.
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / ".gpu-wheels"
SHARE_OF_TESTS = 0.45
LOST = 3  # exit status of a process whose GPU gave an error that it cannot recover from
OWN = ("graphseq", "tests", "experiments")
OLDEST = {"torch": (2, 11), "torch_geometric": (2, 8)}

# most important first; the scale of each on a GPU and on a processor, where only the way is tried
EXPERIMENTS = {
    "speed.graph_loader": "default",
    "speed.temporal_train": "quick",
    "speed.graph_epoch": "default",
    "speed.image_loader": "default",
    "speed.l2r_step": "default",
    "speed.segment": "quick",
    "speed.temporal_scale": "quick",
}


def prepare(device):
    """Make the package and spare wheels importable, and refuse the network."""
    sys.path.insert(0, str(ROOT))
    if WHEELS.is_dir():
        sys.path.append(str(WHEELS))  # behind what is installed
    os.environ["GRAPHSEQ_DEVICE"] = device
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.chdir(ROOT)
    import urllib.error
    import urllib.request

    def refuse(*arguments, **options):
        raise urllib.error.URLError("make gpu uses no network")

    urllib.request.urlopen = refuse


def check(device):
    """Return what is missing to begin at all, or None."""
    for name, oldest in OLDEST.items():
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed for {sys.executable}; give another by PYTHON=..."
        version = __import__(name).__version__
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < oldest:
            return f"{name} {version} is older than {'.'.join(map(str, oldest))}"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return "there is no CUDA device; DEVICE=cpu tries the same tests and rows on the processor"
    return None


def gpu_test_files():
    """Return the test files with tests for a GPU: this folder, and those with the marker or the fixture ``device``."""
    own, uses = Path(__file__).parent, re.compile(r"mark\.gpu|def test_\w+\([^)]*\bdevice\b")
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if uses.search(path.read_text("utf-8"))]
    return [own, *sorted(path for path in marked if own not in path.parents)]


def missing_module(error):
    """Return the name of a third-party module that an error says is missing, or None."""
    while error is not None:
        name = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and name:
            return None if name.split(".")[0] in OWN else name
        if type(error).__name__ == "OptionalDependencyError":
            return str(error)
        error = error.__cause__ or error.__context__
    return None


def recorder(file, deadline):
    """Return a pytest plugin that writes each outcome at once, turns a missing package into a skip, and keeps time."""
    import pytest

    class Recorder:
        def write(self, **line):
            with open(file, "a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")

        def pytest_collectreport(self, report):
            if report.failed:
                text = str(report.longrepr)
                found = re.search(r"No module named '(\w+)", text)
                if found and found.group(1) not in OWN:
                    self.write(test=report.nodeid, outcome="skipped", reason=f"{found.group(1)} is not installed")
                else:
                    self.write(test=report.nodeid, outcome="error", reason=text[-2000:])
            elif report.skipped:
                self.write(test=report.nodeid, outcome="skipped", reason=str(report.longrepr[2]))

        def pytest_runtest_setup(self, item):
            if time.time() > deadline:
                pytest.skip("left out: the time for tests is spent")

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(self, item, call):
            report = yield
            name = missing_module(call.excinfo.value) if call.excinfo and report.failed else None
            if name:
                report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"{name} is not installed")
            return report

        def pytest_runtest_logreport(self, report):
            if report.when != "call" and report.passed:
                return
            skipped = report.skipped and isinstance(report.longrepr, tuple)
            reason = "" if report.passed else str(report.longrepr[2] if skipped else report.longrepr)[-2000:]
            self.write(test=report.nodeid, outcome=report.outcome, reason=reason, seconds=report.duration)

    return Recorder()


def run_tests(out, deadline):
    """Run the tests marked ``gpu``; return the exit status."""
    import pytest

    file = out / "tests.jsonl"
    file.unlink(missing_ok=True)
    options = ["-m", "gpu and not slow", "-p", "no:cacheprovider", "-q", "--no-header", "-rN", "--tb=short"]
    options += ["--continue-on-collection-errors", "-o", "addopts=--strict-markers"]
    status = pytest.main([*options, *map(str, gpu_test_files())], plugins=[recorder(file, deadline)])
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else int(status)


def plan():
    """Return the names of the speed experiments, most important first, then those that have no place yet."""
    from graphseq.bench import experiments

    return [name for name in EXPERIMENTS if name in experiments()] + [
        name for name in experiments() if name.startswith("speed.") and name not in EXPERIMENTS
    ]


def ordered(cells):
    """Return cells with those on generated data first: they can be measured anywhere."""
    return sorted(cells, key=lambda cell: not str(cell.get("data", "generated")).startswith(("generated", "random")))


def run_rows(out, deadline, device):
    """Measure row after row until the time is spent; those that are on disk are not measured again."""
    import torch

    torch.set_num_threads(1)
    from graphseq.bench import load_experiment
    from graphseq.bench.experiment import SkipCell
    from graphseq.bench.records.environment import environment
    from graphseq.bench.records.files import write_json
    from graphseq.bench.records.rows import plain

    records, waiting = {}, []
    for name in plan():
        scale = "quick" if device == "cpu" else EXPERIMENTS.get(name, "quick")
        try:
            experiment = load_experiment(name).on(device)
            cells = ordered(experiment.cells(scale, 1))
        except Exception as error:
            record(out, records, name, {"skipped": f"cannot be loaded: {error}"}, write_json)
            continue
        records[name] = {"name": name, "kind": "speed", "scale": scale, "verdict": None, "rule": "", "rows": []}
        records[name] |= {"checks": [], "table": [], "environment": environment()}
        done = json.loads((out / f"{name}.json").read_text("utf-8"))["rows"] if (out / f"{name}.json").exists() else []
        records[name]["rows"] = done
        known = [{key: row.get(key) for key in cells[0]} for row in done]
        waiting += [(place, name, experiment, scale, cell) for place, cell in enumerate(cells) if cell not in known]
    rank = {name: place for place, name in enumerate(records)}
    # the first case of each experiment, then its second, and so on
    waiting.sort(key=lambda entry: (entry[0], rank[entry[1]]))
    for place, (_, name, experiment, scale, cell) in enumerate(waiting):
        left = [f"{other} {case}" for _, other, _, _, case in waiting[place:]]
        (out / "left_out.json").write_text(json.dumps(left, indent=1) + "\n", "utf-8")
        if time.time() > deadline:
            return 0
        start = time.time()
        try:
            torch.manual_seed(0)
            row = {**cell, **plain(experiment.run(dict(cell), scale), name)}
        except SkipCell as reason:
            row = {**cell, "skipped": str(reason)}
        except Exception as error:
            missing = missing_module(error)
            row = {**cell, "skipped": f"{missing} is not installed" if missing else f"error: {error!r}"[:2000]}
        record(out, records, name, row, write_json)
        outcome = row.get("skipped") or ", ".join(f"{k} {v['median']:.3g}" for k, v in row.get("ratio", {}).items())
        print(f"{name} {cell}: {outcome} ({time.time() - start:.1f} s)", flush=True)
        if "CUDA error" in str(row.get("skipped")) or "AcceleratorError" in str(row.get("skipped")):
            return LOST
    (out / "left_out.json").write_text("[]\n", "utf-8")
    return 0


def record(out, records, name, row, write_json):
    """Add a row to the record of an experiment and write it."""
    found = records.setdefault(name, {"name": name, "kind": "speed", "rows": []})
    found["rows"].append(row)
    write_json(out / f"{name}.json", found)


def child(part, arguments, stop):
    """Run one part in a process of its own and end it when the time is spent; return its exit status."""
    command = [sys.executable, __file__, "--part", part, "--device", arguments.device, "--out", str(arguments.out)]
    process = subprocess.Popen([*command, "--deadline", str(stop - 15)], start_new_session=True, stdin=subprocess.PIPE)
    try:
        return process.wait(max(1.0, stop - time.time()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"make gpu: {part} did not end in its time and were stopped; what was done is in {arguments.out}")
        return 0


def end_with_parent():
    """End this process and those it started when the process that started it ends, which closes its standard input."""
    parent = os.dup(0)  # pytest puts another in its place

    def watch():
        os.read(parent, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def summary(out):
    """Print what was done, skipped and left out; return whether a test failed."""
    outcomes = {}
    if (out / "tests.jsonl").exists():
        for line in (out / "tests.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            kind = "left out" if "left out" in entry["reason"] else entry["outcome"]
            outcomes.setdefault(kind, []).append(entry)
    print("\ntests: " + (", ".join(f"{len(entries)} {kind}" for kind, entries in outcomes.items()) or "none ran"))
    for entry in outcomes.get("failed", []) + outcomes.get("error", []):
        print(f"  {entry['outcome']} {entry['test']}")
    reasons = {}
    for entry in outcomes.get("skipped", []):
        reasons.setdefault(entry["reason"], []).append(entry["test"])
    for reason, tests in reasons.items():
        print(f"  skipped {len(tests)}: {reason}")
    for path in sorted(out.glob("speed.*.json")):
        rows = json.loads(path.read_text("utf-8"))["rows"]
        skipped = [row["skipped"] for row in rows if "skipped" in row]
        print(f"{path.stem}: {len(rows) - len(skipped)} rows" + (f", {len(skipped)} skipped" if skipped else ""))
        for reason in dict.fromkeys(skipped):
            print(f"  skipped: {reason[:200]}")
    if (out / "left_out.json").exists():
        left = json.loads((out / "left_out.json").read_text("utf-8"))
        for name in dict.fromkeys(entry.split()[0] for entry in left):
            print(f"left out for want of time: {sum(entry.startswith(name) for entry in left)} rows of {name}")
    return bool(outcomes.get("failed") or outcomes.get("error"))


def wheels(folder):
    """Fill a folder with the pure-Python packages that a Python with torch may lack; needs the network."""
    names = (
        "jsonargparse typeshed-client docstring-parser importlib-resources platformdirs lightning lightning-utilities "
        "pytorch-lightning torchmetrics networkx rich markdown-it-py mdurl pygments packaging fsspec tqdm "
        "typing-extensions pytest pluggy iniconfig hypothesis sortedcontainers"
    )
    only = ["--only-binary=:all:", "--no-deps", "--platform=any", "--implementation=py", "--abi=none"]
    folder.mkdir(exist_ok=True)
    downloads = folder / "downloads"
    command = [sys.executable, "-m", "pip", "download", "--quiet", *only, "--dest", str(downloads)]
    missing = [name for name in names.split() if subprocess.call([*command, name]) != 0]
    import zipfile

    for wheel in downloads.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    print(f"{len(list(downloads.glob('*.whl')))} packages in {folder}" + (f"; not found: {missing}" if missing else ""))
    return 0


def main():
    """Run one part, or all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default=os.environ.get("GRAPHSEQ_DEVICE", "cuda"))
    parser.add_argument("--out", type=lambda text: Path(text).resolve(), default=ROOT / "results/gpu")
    parser.add_argument("--seconds", type=float, default=480, help="time for all of it")
    parser.add_argument("--wheels", action="store_true", help="fill .gpu-wheels/ and stop")
    parser.add_argument("--part", choices=["tests", "rows"], help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.wheels:
        return wheels(WHEELS)
    prepare(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        end_with_parent()
    if arguments.part == "tests":
        return run_tests(arguments.out, arguments.deadline)
    if arguments.part == "rows":
        return run_rows(arguments.out, arguments.deadline, arguments.device)
    start = time.time()
    if problem := check(arguments.device):
        print(f"make gpu: {problem}", file=sys.stderr)
        return 2
    for path in [*arguments.out.glob("speed.*.json"), arguments.out / "left_out.json"]:
        path.unlink(missing_ok=True)
    child("tests", arguments, start + SHARE_OF_TESTS * arguments.seconds)
    stop = start + arguments.seconds - 10
    while child("rows", arguments, stop) == LOST and time.time() < stop - 30:
        print("make gpu: the GPU gave an error; the other rows are measured in a fresh process")
    failed = summary(arguments.out)
    print(f"{time.time() - start:.0f} of {arguments.seconds:.0f} s; results in {arguments.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
