"""Curves from CSV logs: finding runs, reading sparse rows, what is drawn, and what is said when there is nothing."""

import csv
import itertools
import math
import subprocess
import sys

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphseq.cli.labels import differing_settings, run_labels, saved_settings
from graphseq.cli.logs import RunError, best_point, find_log, find_logs, read_run, run_names
from graphseq.cli.plotting import _spread, _uses_epochs, draw_runs, main

HEADER = "epoch,step,test/acc,test/loss,train/loss,val/acc,val/loss"
ROWS = [
    "0,9,,,2.2956,,",
    "0,19,,,2.1,,",
    "0,19,,,,0.40,2.19",
    "1,29,,,1.9,,",
    "1,39,,,1.5,,",
    "1,39,,,,0.78,1.60",
    "2,49,,,1.2,,",
    "2,59,,,1.0,,",
    "2,59,,,,0.70,1.80",
    "3,60,0.69,1.85,,,",
]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three runs as the logger lays them out: one with two versions, one alone, one without a log."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for folder, scale in (("gin/version_2", 1.0), ("gin/version_10", 0.5), ("mlp/version_0", 2.0)):
        write(tmp_path / "runs" / folder, scale)
    (tmp_path / "runs/empty/version_0").mkdir(parents=True)
    return tmp_path / "runs"


def write(folder, scale=1.0, header=HEADER, rows=ROWS):
    folder.mkdir(parents=True)
    lines = []
    for row in rows:
        epoch, step, *values = row.split(",")
        lines.append(",".join([epoch, step, *(str(float(value) * scale) if value else "" for value in values)]))
    (folder / "metrics.csv").write_text("\n".join([header, *lines]) + "\n")


def lines_of(axes):
    """Curves drawn in an axes, without the markers."""
    return [line for line in axes.lines if line.get_linestyle() != "None" and len(line.get_xdata()) > 1]


def test_newest_version_is_found_from_every_kind_of_path(runs):
    newest = runs / "gin/version_10/metrics.csv"
    for path in (runs / "gin", runs / "gin/version_10", newest):
        assert find_log(path) == newest
    assert find_log(runs / "gin/version_2").parent.name == "version_2"


def test_sparse_rows_are_read_like_a_plain_loop_does(runs):
    run = read_run(runs / "gin/version_2")
    with open(runs / "gin/version_2/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for curve in run.curves:
        expected = [(float(row[curve.name]), int(row["step"]), int(row["epoch"])) for row in rows if row[curve.name]]
        assert [(point.value, point.step, point.epoch) for point in curve.points] == expected
    assert [curve.name for curve in run.curves] == ["test/acc", "test/loss", "train/loss", "val/acc", "val/loss"]


def test_best_is_lowest_loss_and_highest_accuracy(runs):
    curves = {curve.name: curve for curve in read_run(runs / "gin/version_2").curves}
    assert best_point(curves["val/loss"]).epoch == 1
    assert best_point(curves["val/acc"]).epoch == 1
    assert best_point(curves["train/loss"]).value == 1.0


def test_step_and_epoch_columns_of_one_value_are_one_curve(tmp_path):
    write(tmp_path / "run", header="epoch,step,train/loss_epoch,train/loss_step,val/f1_epoch", rows=[
        "0,4,,2.0,", "0,9,,1.8,", "0,9,1.9,,0.5",
    ])  # fmt: skip
    run = read_run(tmp_path / "run")
    assert [(curve.name, len(curve.points)) for curve in run.curves] == [("train/loss", 1), ("val/f1", 1)]


def test_a_line_cut_short_by_a_run_that_goes_on_is_read(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.csv").write_text("epoch,step,val/loss\n0,9,1.0\n1,19")
    assert [point.value for point in read_run(folder).curves[0].points] == [1.0]


def test_diverged_values_are_read_and_left_out_of_the_figure(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.csv").write_text("epoch,step,val/loss\n0,9,1.0\n1,19,nan\n2,29,inf\n3,39,0.5\n")
    run = read_run(folder)
    assert math.isnan(run.curves[0].points[1].value)
    assert best_point(run.curves[0]).value == 0.5
    (axes,) = draw_runs([run], ["run"]).axes
    assert lines_of(axes)[0].get_ydata().tolist() == [1.0, 0.5]


def test_names_tell_runs_apart_and_are_short(runs):
    paths = ["gin/version_2", "gin/version_10", "mlp"]
    assert run_names([read_run(runs / path) for path in paths]) == ["gin/version_2", "gin/version_10", "mlp"]
    assert run_names([read_run(runs / "gin"), read_run(runs / "mlp")]) == ["gin", "mlp"]
    write(runs.parent / "other/gin/version_10")
    both = [read_run(runs / "gin"), read_run(runs.parent / "other/gin")]
    assert run_names(both) == ["runs/gin/version_10", "other/gin/version_10"]


def test_panels_colours_styles_and_test_values(runs):
    both = [read_run(runs / "gin"), read_run(runs / "mlp")]
    figure = draw_runs(both, ["gin", "mlp"], title="Digits")
    assert [axes.get_title("left") for axes in figure.axes] == ["loss", "acc"]
    loss, accuracy = figure.axes
    assert len(lines_of(loss)) == 6  # two runs, three stages
    assert len(lines_of(accuracy)) == 4
    colours = {line.get_color() for line in lines_of(loss)}
    assert len(colours) == 2
    styles = {str(line._dash_pattern) for line in lines_of(loss)}
    assert len(styles) == 3
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == [
        "gin", "mlp", "train", "val", "test", "best val",
    ]  # fmt: skip
    level = [line for line in lines_of(accuracy) if len(set(line.get_ydata())) == 1]
    assert sorted(line.get_ydata()[0] for line in level) == pytest.approx([0.345, 1.38])


def test_one_run_is_labelled_at_its_lines(runs):
    figure = draw_runs([read_run(runs / "gin/version_2")], ["gin"])
    assert not figure.legends
    assert {text.get_text() for text in figure.axes[0].texts} == {"train", "val", "test 1.85"}


def test_axis_counts_epochs_only_if_every_curve_does(runs, tmp_path):
    assert not _uses_epochs([read_run(runs / "gin")])
    write(tmp_path / "plain", header="epoch,step,train/loss,val/loss", rows=["0,9,,2", "0,9,1,", "1,19,,1", "1,19,1,"])
    run = read_run(tmp_path / "plain")
    assert _uses_epochs([run])
    assert not _uses_epochs([run, read_run(runs / "gin")])
    (axes,) = draw_runs([run], ["plain"]).axes
    assert axes.get_xlabel() == "epoch"
    assert lines_of(axes)[0].get_xdata().tolist() == [0, 1]


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=8))
def test_labels_are_spread_in_order_and_stay_inside(heights):
    gap = 0.06
    placed = _spread(heights, gap, 0.02, 0.98)
    assert all(0.02 <= height <= 0.98 for height in placed)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for below, above in itertools.pairwise(order):
        assert placed[above] - placed[below] > 0.5 * gap


def test_labels_far_apart_stay_where_they_are():
    assert _spread([0.9, 0.1, 0.5], 0.06, 0.0, 1.0) == [0.9, 0.1, 0.5]


def test_command_writes_beside_the_run_and_prints_values(runs, capsys):
    assert main([str(runs / "gin/version_2")]) == 0
    shown = capsys.readouterr().out
    assert (runs / "gin/version_2/curves.png").read_bytes().startswith(b"\x89PNG")
    assert "wrote runs/gin/version_2/curves.png" in shown
    assert any(line.split() == ["gin", "val/acc", "0.78", "1", "39", "0.7"] for line in shown.splitlines())
    assert max(map(len, shown.splitlines())) <= 80
    assert [path.name for path in (runs / "gin/version_2").iterdir() if path.name.startswith(".")] == []


def test_command_writes_several_runs_into_their_common_folder(runs):
    assert main([str(runs / "gin"), str(runs / "mlp"), str(runs / "mlp")]) == 0
    assert (runs / "curves.png").is_file()


def test_command_takes_metrics_out_and_title(runs, capsys):
    arguments = [str(runs / "gin"), "--metric", "val/acc", "--metric", "loss", "--out", "new/figure.png"]
    assert main([*arguments, "--title", "Runs"]) == 0
    assert (runs.parent / "new/figure.png").is_file()
    printed = [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert printed == ["train/loss", "val/loss", "test/loss", "val/acc"]


def test_errors_say_what_there_is(runs, capsys):
    def error(*arguments):
        assert main(list(arguments)) == 2
        return capsys.readouterr().err

    assert "there is no runs/gim; there is runs/gin, runs/mlp" in error("runs/gim").replace(str(runs.parent) + "/", "")
    message = error("runs/empty")
    assert "runs/empty has neither metrics.csv nor version_*/metrics.csv; there is runs/gin, runs/mlp" in message
    assert "name one or more of its runs, or draw all with --all: there is runs/gin, runs/mlp" in error("runs")
    assert "no run has the metric val/f1; there are test/acc, test/loss" in error("runs/gin", "--metric", "val/f1")
    assert "is not a .png file" in error("runs/gin", "--out", "figure.pdf")
    assert "cannot be written" in error("runs/gin", "--out", "runs/gin/version_2/metrics.csv/x.png")
    assert "--all" in error()
    assert "there is no nothing" in error("nothing", "--all")
    (runs / "empty/version_0/metrics.csv").write_text("")
    assert "holds no values" in error("runs/empty")
    (runs / "empty/version_0/metrics.csv").write_text("epoch,step,val/loss\n")
    assert "holds no values" in error("runs/empty")
    (runs / "empty/version_0/metrics.csv").write_text("epoch,step,val/loss\n0,9,high\n")
    assert "line 2 of runs/empty/version_0/metrics.csv, column val/loss, holds 'high'" in error("runs/empty")
    (runs / "empty/version_0/metrics.csv").write_bytes(b"epoch,step,val/loss\n0,9,\xff\n")
    assert error("runs/empty")


def test_unreadable_runs_raise_for_callers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="nothing; .*runs/ or lightning_logs/"):
        read_run(tmp_path / "nothing")


def test_log_that_lightning_writes_is_drawn(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch.loggers")
    logger = lightning.CSVLogger(tmp_path / "runs", name="digits")
    for epoch in range(3):
        logger.log_metrics({"train/loss": 1.0 / (epoch + 1), "epoch": epoch}, step=10 * epoch)
        logger.log_metrics({"val/loss": 1.2 / (epoch + 1), "val/acc": 0.3 * epoch, "epoch": epoch}, step=10 * epoch + 9)
        logger.save()
    logger.log_metrics({"test/acc": 0.55, "epoch": 3}, step=30)
    logger.save()
    run = read_run(tmp_path / "runs/digits")
    assert {curve.name: len(curve.points) for curve in run.curves} == {
        "train/loss": 3,
        "val/loss": 3,
        "val/acc": 3,
        "test/acc": 1,
    }
    assert main([str(tmp_path / "runs/digits")]) == 0


def test_more_runs_than_colours_are_still_told_apart(runs):
    many = [read_run(runs / "gin")] * 12
    figure = draw_runs(many, [f"run {index}" for index in range(12)])
    assert len({matplotlib.colors.to_hex(line.get_color()) for line in lines_of(figure.axes[0])}) == 12


def test_neither_torch_nor_lightning_is_imported(runs):
    code = (
        "import sys; from graphseq.cli.plotting import main; status = main(sys.argv[1:]);"
        "assert status == 0; assert not {'torch', 'lightning', 'pandas', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, "runs/gin"], check=True, cwd=runs.parent, capture_output=True)


CONFIG = """\
seed_everything: 0
trainer: {{max_epochs: 4, default_root_dir: {folder}, callbacks: [{{class_path: a.Stop, init_args: {{patience: 3}}}}]}}
model: {{class_path: a.Task, init_args: {{model: {model}, optimizer: {{init_args: {{lr: {lr}}}}}}}}}
ckpt_path: {folder}
"""
GIN = "{class_path: graphseq.models.GIN, init_args: {hidden_channels: %d, eps: 0.1}}"
SGC = "{class_path: graphseq.models.SGC, init_args: {hops: 2}}"


@pytest.fixture
def sweep(runs):
    """Four versions of one config, that differ in width and learning rate, and a run of another config."""
    for version, (width, lr) in enumerate([(16, 0.001), (16, 0.01), (64, 0.001), (64, 0.001)]):
        write(runs / f"sweep/version_{version}")
        text = CONFIG.format(folder=runs / str(version), model=GIN % width, lr=lr)
        (runs / f"sweep/version_{version}/config.yaml").write_text(text)
    return runs


def labels(runs):
    folders = [runs / f"sweep/version_{version}" for version in range(4)]
    return run_labels(["sweep"] * 4, list(map(saved_settings, folders)), run_names(list(map(read_run, folders))))


def test_labels_of_a_sweep_are_what_differs_and_no_more(sweep):
    assert labels(sweep) == [
        "hidden_channels 16, lr 0.001",
        "hidden_channels 16, lr 0.01",
        "hidden_channels 64, lr 0.001 (sweep/version_2)",
        "hidden_channels 64, lr 0.001 (sweep/version_3)",
    ]
    text = CONFIG.format(folder="runs", model=SGC, lr=0.01)
    (sweep / "sweep/version_3/config.yaml").write_text(text)
    assert [label.partition(",")[0] for label in labels(sweep)] == ["model GIN"] * 3 + ["model SGC"]
    (sweep / "sweep/version_3/config.yaml").write_text("not: [yaml")
    assert labels(sweep)[3] == "sweep/version_3"


def test_keys_are_as_long_as_it_takes_to_tell_them_apart():
    first = {"a.lr": 1.0, "b.lr": 1.0, "c.size": 3, "d.0.x": [1, 2]}
    other = {"a.lr": 2.0, "b.lr": 3.0, "c.size": 3, "d.0.x": None}
    assert differing_settings([first, other]) == [
        {"a.lr": 1.0, "b.lr": 1.0, "x": [1, 2]},
        {"a.lr": 2.0, "b.lr": 3.0, "x": None},
    ]
    assert differing_settings([first, first]) == [{}, {}]


def test_labels_of_several_configs_begin_with_their_names():
    settings = [{"m.lr": 0.1}, {"m.lr": 0.2}, {"m.lr": 9.0}, {}, {}]
    groups, names = ["gin", "gin", "mlp", "old", "old"], ["gin/0", "gin/1", "mlp", "old/0", "old/1"]
    assert run_labels(groups, settings, names) == ["gin, lr 0.1", "gin, lr 0.2", "mlp", "old/0", "old/1"]
    assert run_labels(["gin"] * 2, settings[:2], names[:2]) == ["lr 0.1", "lr 0.2"]


def test_all_draws_every_version_below_and_leaves_out_what_logged_nothing(sweep, capsys):
    assert [log.parent.name for log in find_logs(sweep / "gin")] == ["version_2", "version_10"]
    (sweep / "empty/version_0/metrics.csv").write_text("")
    assert main(["--all"]) == 0
    shown = capsys.readouterr()
    assert "left out: runs/empty/version_0/metrics.csv holds no values" in shown.err
    assert (sweep / "curves.png").is_file()
    assert max(map(len, shown.out.splitlines())) <= 80
    assert main([str(sweep / "sweep"), "--all", "--metric", "val/acc"]) == 0
    assert capsys.readouterr().out.count("val/acc") == 4
    (sweep / "void").mkdir()
    assert main([str(sweep / "void"), "--all"]) == 2


def test_losses_are_marked_as_better_when_lower(runs):
    loss, accuracy = draw_runs([read_run(runs / "gin")], ["gin"]).axes
    assert (loss.get_title("right"), accuracy.get_title("right")) == ("lower is better", "")
