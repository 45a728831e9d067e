"""Figures of the repository's records: each follows from its record, says what was found, and shows the spread."""

import copy
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

import graphseq
from graphseq.bench import Above, Effect, Rule, all_of, any_of, load_experiment
from graphseq.bench.command import main
from graphseq.bench.records.drawing import Panel, draw_panels
from graphseq.bench.records.files import read_records, write_figure
from graphseq.bench.records.report import claim_in_words, details_markdown, results_markdown

ROOT = Path(graphseq.__file__).parents[1]
DRAWN = (
    "effect.gin_tu",
    "effect.l2r_motif",
    "effect.l2r_scaffold",
    "effect.l2r_size",
    "effect.pres",
    "effect.snn",
    "effect.tgn_wikipedia",
    "speed.l2r_step",
    "speed.temporal_scale",
)


def record_of(name):
    return json.loads((ROOT / f"results/{name}.json").read_text("utf-8"))


def drawn(name, record):
    figure = Figure(layout="constrained")
    load_experiment(name).draw(record, figure.subplots())
    return figure


@pytest.mark.parametrize("name", DRAWN)
def test_verdict_and_claims_follow_from_the_rows_that_are_drawn(name):
    experiment, record = load_experiment(name), record_of(name)
    conclusion = experiment.conclude(experiment.rows_of(record))
    assert conclusion.verdict == record["verdict"]
    if len(conclusion.checks) == len(record["checks"]):  # some claims are written as several now
        held = sorted(check.holds for check in conclusion.checks)
        assert held == sorted(check["holds"] for check in record["checks"])


@pytest.mark.parametrize("name", DRAWN)
def test_title_is_the_verdict_and_what_was_found(name):
    record = record_of(name)
    title = " ".join(drawn(name, record).get_suptitle().split())
    words = {"reproduced": "Reproduced: ", "partly": "Reproduced in part: ", "not reproduced": "Not reproduced: "}
    if record["verdict"]:
        assert title.startswith(words[record["verdict"]])
        other = drawn(name, {**record, "verdict": "reproduced"}).get_suptitle()
        assert other.startswith("Reproduced: ")
    else:
        assert "claims hold." in title
    assert sum(character.isdigit() for character in title) >= 1


@pytest.mark.parametrize(
    ("name", "change", "before", "after"),
    [
        ("effect.snn", lambda row: row["arm"] == "batch" and row["data"] == "USPS", "on 3 of 3", "on 2 of 3"),
        ("effect.pres", lambda row: row["setting"] == "JODIE 2000" and row["arm"] == "pcs", "neither part", "alone is"),
        ("effect.gin_tu", lambda row: row["data"] == "MUTAG" and row["arm"].startswith("GIN"), "3 of 3", "2 of 3"),
    ],
)
def test_title_changes_with_the_rows(name, change, before, after):
    record = record_of(name)
    rows = load_experiment(name).rows_of(record)
    assert before in " ".join(drawn(name, record).get_suptitle().split())
    for row in copy.deepcopy(rows):
        if change(row):
            metric = "ap" if name == "effect.pres" else "acc"
            row["test"][""][metric] = 1.0 if name != "effect.gin_tu" else 0.2
            row["curve"] = [0.2] * len(row.get("curve", [0.2]))
        rows[rows.index(next(old for old in rows if key(old) == key(row)))] = row
    changed = {**record, "rows": rows}
    title = " ".join(drawn(name, changed).get_suptitle().split())
    assert after in title
    assert before not in title


def key(row):
    return [row.get(name) for name in ("data", "setting", "model.model.num_layers", "arm", "seed")]


def test_claims_of_l2r_decide_its_title():
    record = record_of("effect.l2r_motif")
    for check in record["checks"][:2]:
        check["holds"] = True
    title = " ".join(drawn("effect.l2r_motif", record).get_suptitle().split())
    assert title.endswith("in 1 of 10 settings (bias 0.6, unbiased)")


class TestPanels:
    def figure(self, **options):
        panels = [
            Panel("one", {"plain network": [1.0, 2.0, 3.0], "ours": [4.0, 5.0, 6.0]}, line=2.0),
            Panel("other", {"plain network": [10.0, 12.0], "ours": [float("nan"), 20.0, 21.0, 22.0]}),
        ]
        figure = Figure(layout="constrained")
        draw_panels(figure, panels, finding="Ours is better.", label="accuracy; line: a mark", **options)
        figure.canvas  # noqa: B018 - the access is what is tested
        return figure

    def test_every_seed_is_a_dot_and_an_interval_needs_three(self):
        first, second = self.figure().axes
        seeds = [len(dots.get_offsets()) for axes in (first, second) for dots in axes.collections if len(
            dots.get_offsets()) > 1]  # fmt: skip
        assert seeds == [3, 3, 2, 3]
        assert [container.has_xerr for axes in (first, second) for container in axes.containers] == [
            True, True, False, True,
        ]  # fmt: skip
        bars = first.containers[0].lines[2][0].get_segments()[0]
        assert bars[:, 0] == pytest.approx([2 - 2.484, 2 + 2.484], abs=1e-3)  # t interval of 1, 2, 3

    def test_panels_share_arms_and_axis(self):
        first, second = self.figure().axes
        assert first.get_xlim() == second.get_xlim()
        assert [label.get_text() for label in first.get_yticklabels()] == ["plain network", "ours"]
        assert "accuracy, lower is better; line: a mark" in self.figure(better="lower").get_supxlabel()

    def test_scales_are_apart(self):
        figure = Figure(layout="constrained")
        panels = [Panel("a", {"x": [1.0, 2.0]}), Panel("b", {"x": [90.0, 99.0]}, scale="other")]
        draw_panels(figure, panels, finding="", label="")
        assert figure.axes[0].get_xlim()[1] < 3

    def test_without_values_nothing_is_drawn(self):
        figure = Figure()
        draw_panels(figure, [Panel("a", {"x": []})], finding="", label="")
        assert figure.axes == []


def test_an_effect_without_a_figure_of_its_own_shows_differences_in_words(tmp_path):
    effect = Effect(
        name="effect.coin", source="none", protocol="", arms={"tails": {"x": 0}, "heads": {"x": 1}},
        run=lambda cell, scale, effect: {"up": float(cell["arm"] == "heads") + 0.01 * cell["seed"]},
        score=lambda row: row["up"], claims=[Above("A", "heads@1 - tails@1")], verdict=Rule(all_of("A"), any_of("A")),
        words={"heads": "heads up", "tails": "tails up"}, unit="points", grid={"coin": [1, 2]},
        finding=lambda results, checks: f"heads are up {results.mean('heads@1'):.3f} of the time",
    )  # fmt: skip
    rows = [{**cell, **effect.run(cell, "default")} for cell in effect.cells("default", 4)]
    record = {"name": "effect.coin", "kind": "effect", "verdict": "reproduced", "rows": rows, "checks": [],
              "reruns": [{"rows": [row for row in rows if row["coin"] == 1]}]}  # fmt: skip
    figure = Figure()
    effect.draw(record, figure.subplots())
    assert [axes.get_title("left") for axes in figure.axes] == ["coin 1", "coin 2", "coin 1 (again)"]
    assert figure.get_suptitle() == "Reproduced: heads are up 1.015 of the time"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["heads up"]
    assert figure.get_supxlabel().startswith("difference to tails up in points, higher is better")
    effect.better, figure = "lower", Figure()
    effect.draw(record, figure.subplots())
    assert figure.get_supxlabel().startswith("difference to tails up in points, lower is better")
    assert write_figure(tmp_path / "coin.png", effect, record)
    with Image.open(tmp_path / "coin.png") as image:
        assert image.mode == "P"


def test_redraw_runs_nothing_and_keeps_figures_that_cannot_be_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    record = record_of("speed.temporal_scale")
    (tmp_path / "speed.temporal_scale.json").write_text(json.dumps(record))
    bare = {**record_of("effect.gin_tu"), "rows": [{"data": "MUTAG", "arm": "GIN, published", "seed": 0}]}
    (tmp_path / "effect.gin_tu.json").write_text(json.dumps(bare))
    (tmp_path / "effect.gin_tu.png").write_bytes(b"old")
    names = ["speed.temporal_scale", "effect.gin_tu", "effect.snn"]
    assert main([*names, "--redraw", "--out-dir", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert (tmp_path / "speed.temporal_scale.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "effect.gin_tu.png").read_bytes() == b"old"
    assert "effect.gin_tu.json cannot be drawn" in shown.err
    assert "no record" in shown.err
    assert main(["speed.temporal_scale", "--redraw", "--out-dir", str(tmp_path)]) == 0


def test_pages_are_those_of_the_records():
    """RESULTS.md and the pages are what ``--report`` writes; a page shows its figure before its tables."""
    records = read_records(ROOT / "results")
    assert (ROOT / "RESULTS.md").read_text("utf-8") == results_markdown(records, ROOT / "results", ROOT)
    for record in records:
        name = record["name"]
        figure = f"{name}.png" if (ROOT / f"results/{name}.png").exists() else None
        page = (ROOT / f"results/{name}.md").read_text("utf-8")
        assert page == details_markdown(record, figure)
        if figure:
            assert page.index(f"]({figure})") < page.index("## ")
            assert (ROOT / "results" / figure).stat().st_size < 130_000
    assert len(records) + 7 == len((ROOT / "RESULTS.md").read_text("utf-8").splitlines()) + 1


def test_claims_are_read_as_words():
    assert claim_in_words("(A) snn@USPS@32 - plain@USPS@32") == "(A) snn less plain at USPS, 32"
    assert claim_in_words("(C) both@800 - none@200") == "(C) both at 800 less none at 200"
    for text in ("TGN at 800", "heads - tails", "building: a-b", "(1) 20000 graphs over 1000 graphs"):
        assert claim_in_words(text) == text
