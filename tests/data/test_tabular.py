import math
import re
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphseq.core import DataError
from graphseq.data import TabularDataModule
from graphseq.models import MLP
from graphseq.tasks import Classification, Regression


def write(folder: Path, *lines: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def flowers(folder: Path, count: int = 60, seed: int = 0, name: str = "table.csv", scale: float = 1.0) -> Path:
    generator = np.random.default_rng(seed)
    rows = [
        f"{scale * generator.normal(10, 3)!r},{scale * generator.normal(-2, 0.5)!r},5,{('iris', 'aster')[n % 2]}"
        for n in range(count)
    ]
    return write(folder, "length,width,petals,kind", *rows, name=name)


def cells(path: Path) -> list[list[str]]:
    """The table split by hand: no quotes in it."""
    return [line.split(",") for line in path.read_text().splitlines()]


def moments(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


class TestReading:
    def test_equals_plain_python(self, tmp_path):
        path = flowers(tmp_path)
        data = TabularDataModule(path, "kind", batch_size=8)
        _, *rows = cells(path)
        features, targets = data.store.take(torch.arange(60))
        assert features.dtype == torch.float32
        assert targets.dtype == torch.int64
        assert targets.tolist() == [{"aster": 0, "iris": 1}[row[3]] for row in rows]
        for column in range(2):
            values = [float(row[column]) for row in rows]
            mean, std = moments([values[n] for n in data.splits["train"].tolist()])
            assert data.mean[column] == pytest.approx(mean)
            assert data.std[column] == pytest.approx(std)
            assert features[:, column].tolist() == pytest.approx([(value - mean) / std for value in values], abs=1e-5)
        assert features[:, 2].tolist() == [0.0] * 60
        assert (data.mean[2], data.std[2]) == (5.0, 1.0)

    def test_statistics_come_from_the_training_split_alone(self, tmp_path):
        path = flowers(tmp_path)
        first = TabularDataModule(path, "kind")
        header, *rows = cells(path)
        for n in [*first.splits["val"].tolist(), *first.splits["test"].tolist()]:
            rows[n][:3] = ["1e6", "-1e6", "7"]
        second = TabularDataModule(write(tmp_path, *map(",".join, [header, *rows]), name="touched.csv"), "kind")
        assert torch.equal(first.splits["train"], second.splits["train"])
        assert (first.mean, first.std) == (second.mean, second.std)

    @settings(max_examples=40, deadline=None)
    @given(
        values=st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 1)), min_size=10, max_size=30),
        seed=st.integers(0, 99),
    )
    def test_training_columns_have_mean_zero_and_deviation_one(self, tmp_path_factory, values, seed):
        folder = tmp_path_factory.mktemp("table")
        path = write(folder, "a,b,y", *(f"{a / 8},{b},{n}.5" for n, (a, b) in enumerate(values)))
        data = TabularDataModule(path, "y", seed=seed)
        features, _ = data.store.take(data.splits["train"])
        for number, column in enumerate(features.double().unbind(1)):
            constant = len({values[n][number] for n in data.splits["train"].tolist()}) == 1
            assert abs(float(column.mean())) < 1e-5
            assert float(column.std(correction=0)) == pytest.approx(0.0 if constant else 1.0, abs=1e-5)

    def test_sizes_and_networks(self, tmp_path):
        data = TabularDataModule(flowers(tmp_path), "kind", batch_size=16)
        assert (data.num_features, data.input_size, data.num_outputs) == (3, 3, 2)
        assert data.feature_names == ["length", "width", "petals"]
        assert data.class_names == ["aster", "iris"]
        task = Classification(MLP(data.input_size, data.num_outputs), data.num_outputs)
        assert torch.isfinite(task.step(next(data.batches("train"))).loss)

    def test_splits_cover_and_are_stratified(self, tmp_path):
        data = TabularDataModule(flowers(tmp_path), "kind", fractions=[0.6, 0.2, 0.2])
        assert {name: len(index) for name, index in data.splits.items()} == {"train": 36, "val": 12, "test": 12}
        assert sorted(torch.cat(list(data.splits.values())).tolist()) == list(range(60))
        for index in data.splits.values():
            _, target = data.store.take(index)
            assert torch.bincount(target).tolist() == [len(index) // 2] * 2

    def test_chosen_features_in_their_order(self, tmp_path):
        path = flowers(tmp_path)
        data = TabularDataModule(path, "kind", features=["width", "length"])
        both = TabularDataModule(path, "kind")
        rows = torch.arange(60)
        assert data.feature_names == ["width", "length"]
        assert torch.equal(data.store.take(rows)[0], both.store.take(rows)[0][:, [1, 0]])

    def test_text_and_nameless_columns_are_left_out(self, tmp_path):
        rows = [f"{n},flower {n},{n % 3},{n % 2}" for n in range(40)]
        assert TabularDataModule(write(tmp_path, ",name,a,y", *rows), "y").feature_names == ["a"]

    def test_layouts(self, tmp_path):
        rows = [f'"{n % 7}"; {n % 5} ;"one; or ""two"""' if n % 2 else f"{n % 7};{n % 5};b" for n in range(40)]
        path = write(tmp_path, "a;b;y", *rows[:20], "", *rows[20:], "", encoding="utf-8-sig")
        data = TabularDataModule(str(path), "y", delimiter=";")
        assert data.feature_names == ["a", "b"]
        assert data.class_names == ["b", 'one; or "two"']
        assert len(data.store) == 40


class TestTargets:
    @pytest.mark.parametrize(
        ("labels", "classes"),
        [
            (["10", "9"], ["9", "10"]),
            (["-1", "1"], ["-1", "1"]),
            (["1", "01", "2"], ["1", "2"]),
            (["b10", "b9"], ["b10", "b9"]),
            (["x", "2.5"], ["2.5", "x"]),
            (["yes ", " no"], ["no", "yes"]),
        ],
    )
    def test_labels_are_numbered_in_sorted_order(self, tmp_path, labels, classes):
        rows = [f"{n},{labels[n % len(labels)]}" for n in range(60)]
        data = TabularDataModule(write(tmp_path, "a,y", *rows), "y")
        assert data.class_names == classes
        assert data.num_outputs == len(classes)
        _, target = data.store.take(torch.arange(len(labels)))
        named = [classes[number] for number in target.tolist()]
        assert all(a == b.strip() or float(a) == float(b) for a, b in zip(named, labels, strict=True))

    def test_fractional_numbers_are_a_regression(self, tmp_path):
        data = TabularDataModule(write(tmp_path, "a,y", *(f"{n % 5},{n}.0" for n in range(50))), "y", batch_size=8)
        features, target = next(data.batches("train"))
        assert target.dtype == torch.float32
        assert (data.num_outputs, data.class_names) == (1, [])
        _, everything = data.store.take(torch.arange(50))
        assert everything.tolist() == [float(n) for n in range(50)]
        step = Regression(MLP(1, 1), num_outputs=1).step((features, target))
        assert torch.isfinite(step.loss)

    def test_task_decides_over_the_cells(self, tmp_path):
        whole = write(tmp_path, "a,y", *(f"{n},{n % 4}" for n in range(60)))
        assert TabularDataModule(whole, "y").num_outputs == 4
        as_number = TabularDataModule(whole, "y", task="regression")
        assert as_number.num_outputs == 1
        assert as_number.store.take(torch.arange(4))[1].tolist() == [0.0, 1.0, 2.0, 3.0]
        fractions = write(tmp_path, "a,y", *(f"{n},{n % 2}.5" for n in range(60)), name="fractions.csv")
        assert TabularDataModule(fractions, "y", task="classification").class_names == ["0.5", "1.5"]

    def test_quantity_taken_for_classes(self, tmp_path):
        path = write(tmp_path, "a,y", *(f"{n},{n}" for n in range(40)))
        with pytest.raises(DataError, match=r"stratified.* 40 samples.*split='random'.*task='regression'"):
            TabularDataModule(path, "y").load()
        assert TabularDataModule(path, "y", split="random").num_outputs == 40
        assert TabularDataModule(path, "y", task="regression").num_outputs == 1


class TestBadTables:
    @pytest.mark.parametrize(
        ("lines", "options", "message"),
        [
            (["a,b", "1,2"], {}, r"table\.csv, line 1 .* y; .* a, b"),
            (["a,y", "1,0"], {"features": ["a", "c"]}, "line 1 .* c; .* a, y"),
            (["name,y", "x,0", "z,1"], {}, "target 'y'"),
            (["a,y", "1,0", "?,1", "3,0"], {}, r"line 3, column 'a': '\?'"),
            (["a,y", "1,0", ",1", ",0"], {}, "line 3, column 'a': ''"),
            (["a,y", "1,0", "2,1", "nan,0"], {}, "line 4, column 'a': 'nan'"),
            (["a,y", "-inf,0", "2,1"], {}, "line 2, column 'a': '-inf' "),
            (["a,y", "1,0", "", "x,1"], {}, "line 4, column 'a': 'x' "),
            (["a,b,y", "1,x,0", "2,y,1"], {"features": ["a", "b"]}, "line 2, column 'b': 'x' "),
            (["a,y", "1,0", "2, "], {}, "line 3, column 'y'.* empty"),
            (["a,y", "1,0.5", "2,nan"], {}, "line 3, column 'y': .*'nan'"),
            (["a,y", "1,low", "2,high"], {"task": "regression"}, "line 2, column 'y': 'low' "),
            (["a,y", "1,0", "2,0"], {}, "column 'y': .*'0'"),
            (["a,y", "1,0", "2"], {}, "line 3 .* 1 columns, 2"),
            (["a,y", "1,0,7"], {}, "line 2 .* 3 columns, 2"),
            (["a;y", "1;0"], {}, "line 1 .* y; .* a;y"),
            (["a,a,y", "1,2,0"], {}, "column 'a'"),
            (["a,y"], {}, "no rows"),
            ([], {}, "no rows"),
            (["a,y", '1,"0'], {}, "line 2: a quote"),
            (["a,y", "1,0.5", "2,1.5", "3,2.5"], {}, r"table\.csv: 3 samples .*val "),
            (["a,y", *["1,0.5"] * 30], {"split": "stratified"}, "'y' .*stratified"),
        ],
    )  # fmt: skip
    def test_is_refused(self, tmp_path, lines, options, message):
        with pytest.raises(DataError, match=message):
            TabularDataModule(write(tmp_path, *lines), "y", **options).load()

    def test_no_table(self, tmp_path):
        (tmp_path / "picture.csv").write_bytes(bytes(range(256)))
        for name, what in (("none.csv", "no file"), ("picture.csv", "cannot"), ("", "is a folder")):
            with pytest.raises(DataError, match=f"(?=.*{re.escape(str(tmp_path / name))}).*{what}"):
                TabularDataModule(tmp_path / name, "y").load()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"features": []}, "features is \\[\\]"),
            ({"features": "a"}, "features is 'a'"),
            ({"features": ["a", "a"]}, "each once"),
            ({"features": ["a", "y"]}, "features has the target 'y'"),
            ({"task": "ranking"}, "task is 'ranking'"),
            ({"split": "size"}, "split is 'size'"),
            ({"split": "stratified", "task": "regression"}, "'stratified' .*task 'regression'"),
            ({"delimiter": ", "}, "delimiter is ', '"),
            ({"fractions": [0.5, 0.1, 0.1]}, "sum to 1"),
        ],
    )
    def test_wrong_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            TabularDataModule("table.csv", "y", **options)


class Keep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return x


class TestCheckpoints:
    def test_another_table_is_seen_in_the_units_of_the_training(self, tmp_path):
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        options |= {"accelerator": "cpu", "default_root_dir": tmp_path}
        data = TabularDataModule(flowers(tmp_path), "kind", batch_size=16)
        task = Classification(MLP(3, 2), 2)
        trainer = lightning.Trainer(max_epochs=1, **options)
        trainer.fit(task, data)
        trainer.save_checkpoint(tmp_path / "flowers.ckpt")
        keep = Keep()
        path = flowers(tmp_path, seed=1, name="other.csv", scale=100)
        other = TabularDataModule(path, "kind", batch_size=60, eval_transform=keep)
        assert other.mean[0] > 50 * data.mean[0]
        lightning.Trainer(**options).test(task, other, ckpt_path=tmp_path / "flowers.ckpt", verbose=False)
        assert (other.mean, other.std) == (data.mean, data.std)
        _, *rows = cells(path)
        expected = [
            [(float(rows[n][column]) - data.mean[column]) / data.std[column] for column in range(3)]
            for n in other.splits["test"].tolist()
        ]
        assert torch.allclose(keep.seen[-1], torch.tensor(expected), rtol=1e-5)
        assert other.store.take(torch.arange(60))[1].tolist() == [1, 0] * 30

    def test_other_labels_or_columns(self, tmp_path):
        state = TabularDataModule(flowers(tmp_path), "kind").state_dict()
        renamed = (tmp_path / "table.csv").read_text()
        labels = write(tmp_path, renamed.replace("iris", "rose").strip(), name="labels.csv")
        with pytest.raises(DataError, match=r"class_names \['aster', 'iris'\].*\['aster', 'rose'\]"):
            TabularDataModule(labels, "kind").load_state_dict(state)
        columns = write(tmp_path, renamed.replace("width", "depth").strip(), name="columns.csv")
        with pytest.raises(DataError, match=r"feature_names \['length', 'width', 'petals'\]"):
            TabularDataModule(columns, "kind").load_state_dict(state)
