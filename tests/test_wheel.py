"""The wheel alone is enough: built, installed elsewhere, and used in an empty folder."""

import email
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the tools of this environment where they are installed, else by pip's own copies."""
    folder = tmp_path_factory.mktemp("dist")
    here = [] if importlib.util.find_spec("hatch_fancy_pypi_readme") is None else ["--no-build-isolation"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        *here,
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_files_of_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind, pattern in (
        ("configs", "*/*.yaml"),
        ("examples", "*.py"),
        ("graphseq", "**/*.py"),
        ("graphseq", "**/*.pyi"),
    ):
        prefix = "" if kind == "graphseq" else "graphseq/"
        expected = {prefix + path.relative_to(ROOT).as_posix() for path in (ROOT / kind).glob(pattern)}
        assert expected
        assert expected <= names
    assert {"graphseq/methods.toml", "graphseq/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests/", "experiments/", "results/"))]


def test_description_and_addresses(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    description = metadata.get_payload(decode=True).decode()
    targets = re.findall(r"\]\(([^)]+)\)", description)
    assert len(targets) > 10
    assert not [target for target in targets if not target.startswith("https://")]  # a package index has no files
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL"))
    assert {"Homepage", "Source", "Issues", "Changelog"} <= urls.keys()
    required = [line.partition(";")[0].strip() for line in metadata.get_all("Requires-Dist")]
    (bounds,) = (line for line in required if line.startswith("jsonargparse"))
    assert "<5" in bounds


@pytest.mark.slow
def test_used_in_an_empty_folder(wheel, tmp_path):
    installed, folder = tmp_path / "installed", tmp_path / "empty"
    folder.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(installed)]
    subprocess.run([*pip, str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def graphseq(*words):
        code = "import sys, graphseq.cli; sys.exit(graphseq.cli.main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    names = [line.split()[0] for line in graphseq("list", "configs").splitlines()[1:]]
    assert "graph/gine_digits" in names
    assert "plain_pytorch" in graphseq("list", "examples")
    graphseq("init")
    (folder / "mynet.py").write_text(
        "from graphseq.models import GraphClassifier\n\n\nclass Net(GraphClassifier):\n    pass\n"
    )
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    cpu, network = ["--config", "trainer/cpu"], ["--model.init_args.model.class_path=mynet.Net"]
    graphseq("fit", "--config", "graph/gine_digits", *cpu, *short, *network)
    assert "mynet.Net" in (folder / "runs/gine_digits/version_0/config.yaml").read_text()
    assert {path.name for path in folder.iterdir()} == {
        "runs", "gine_digits.yaml", "own_data_and_network.py", "mynet.py"
    } | {path.name for path in folder.glob("__pycache__")}  # fmt: skip
