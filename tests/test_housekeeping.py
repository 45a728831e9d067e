"""Files that tools outside the package read agree with it."""

from pathlib import Path

import pytest
import yaml

import graphseq
from tests.minimum import lower_bounds

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()


def test_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == graphseq.__version__
    assert citation["license"] == "MIT"


def test_workflow_runs_what_every_change_must_pass():
    jobs = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert commands == {"check": [".ci/run"], "minimum": ["make test-minimum"]}
    assert "\ntest-minimum:" in MAKEFILE
    assert jobs["check"]["env"]["TORCH"] in MAKEFILE


def test_hooks_are_the_commands_of_make_check():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]:
        command = hook["entry"].replace("--force-exclude", "").split()
        assert f"$(BIN)/{' '.join(command).removeprefix('.venv/bin/')}" in MAKEFILE


def test_every_dependency_has_a_lower_bound():
    bounds = lower_bounds((ROOT / "pyproject.toml").read_text())
    assert {"torch==2.11.*", "jsonargparse==4.53.*"} <= set(bounds)
    assert lower_bounds('[project]\ndependencies = ["a[x,y]>=2.6.1,<3"]') == ["a==2.6.1"]
    with pytest.raises(ValueError, match="numpy"):
        lower_bounds('[project]\ndependencies = ["numpy"]')
