import gzip

import pytest
import torch

from graphseq.core import DataError
from graphseq.data import (
    JapaneseVowelsDataModule,
    ReberDataModule,
    SequenceCSVDataModule,
    SequenceDataModule,
    SequenceStore,
    StringDataModule,
    SyntheticSequencesDataModule,
    TSDataModule,
    read_sequence_csv,
    read_ts,
    switching_waves,
)

HEADER = "# a comment\n@problemName small\n@timeStamps false\n@dimensions 2\n@classLabel true up down\n@data\n"


def write(folder, text, name="small.ts"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class TestTS:
    def test_read(self, tmp_path):
        path = write(tmp_path, gzip.compress(f"{HEADER}1,2,3:4,5,6:down\n\n7:8:up\n".encode()), "small.ts.gz")
        found = read_ts(path)
        assert found.x.tolist() == [[1, 4], [2, 5], [3, 6], [7, 8]]
        assert found.ptr.tolist() == [0, 3, 4]
        assert (found.labels, found.class_names, found.y.tolist()) == (["down", "up"], ["up", "down"], [1, 0])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1,2:up\n", "line 1"),
            (HEADER.replace("@data\n", ""), "@data"),
            (HEADER.replace("@classLabel true up down", "@x"), "@classLabel"),
            (HEADER.replace("true up down", "false"), "@classLabel false"),
            (HEADER.replace("true up down", "true up"), "@classLabel true up"),
            (HEADER.replace("timeStamps false", "timeStamps true") + "1:2:up\n", "@timeStamps true"),
            (HEADER.replace("dimensions 2", "dimensions two") + "1:2:up\n", "@dimensions two"),
            (HEADER, "no sequence"),
            (HEADER + "1,2:3,4:sideways\n", "line 7: class 'sideways'"),
            (HEADER + "1,2:3,4:up\n1,2:up\n", "line 8: 1 channels"),
            (HEADER + "1,2:3:up\n", "line 7: channels .*1, 2 steps"),
            (HEADER + "1,?:3,4:up\n", "line 7, channel 1 .*missing"),
            (HEADER + "1,:3,4:up\n", "line 7, channel 1 .*missing"),
            (HEADER + ":3,4:up\n", "line 7, channel 1 .*missing"),
            (HEADER + "1,2:3,x:up\n", "line 7, channel 2 has 'x'"),
            (HEADER + "1,2:NaN,4:up\n", "line 7, channel 2, step 1 is NaN"),
            (HEADER + "1,2:3,1e39:up\n", "line 7, channel 2, step 2 is 1e39"),
            (HEADER + "1,2:3,4:\n", "line 7: class ''"),
            (HEADER + "1_0,2:3,4:up\n", "line 7, channel 1 .*'1_0'"),
            (HEADER.replace("up down", "up up") + "1:2:up\n", "name each class once"),
        ],
    )
    def test_refused(self, text, message, tmp_path):
        with pytest.raises(DataError, match=message):
            read_ts(write(tmp_path, text))

    def test_module(self, tmp_path):
        lines = "".join(f"{n},{n + 1}:{n},0:{'up' if n % 2 else 'down'}\n" for n in range(20))
        train, test = write(tmp_path, HEADER + lines), write(tmp_path, HEADER + "1:1:up\n", "test.ts")
        data = TSDataModule(train, test, batch_size=4)
        assert data.split_sizes() == {"train": 16, "val": 4, "test": 1}
        assert (data.num_features, data.num_outputs, data.class_names) == (2, 2, ["up", "down"])
        assert TSDataModule(train, test, val_path=test).split_sizes() == {"train": 20, "val": 1, "test": 1}
        other = write(tmp_path, HEADER.replace("up down", "down up") + "1:1:up\n", "other.ts")
        with pytest.raises(DataError, match=r"test file .* 2 .*\['down', 'up'\]"):
            TSDataModule(train, other).load()


class TestCSV:
    def test_read(self, tmp_path):
        path = write(tmp_path, "id,kind,a,b\ny,1,0.5,1\nx,10,2,3\ny,1,4,5\n", "t.csv")
        found = read_sequence_csv(path, "id", "kind")
        assert found.x.tolist() == [[0.5, 1], [4, 5], [2, 3]]
        assert (found.ptr.tolist(), found.labels, found.class_names) == ([0, 2, 3], ["1", "10"], ["1", "10"])
        assert read_sequence_csv(path, "id", "kind", features=["b"]).x.tolist() == [[1], [5], [3]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("id,kind,a\n", "no line"),
            ("name,kind,a\n1,1,1\n", "no column 'id'"),
            ("id,kind\n1,1\n", "no feature"),
            ("id,kind,a\n1,u,1\n1,v,2\n", "line 3, column 'kind'"),
            ("id,kind,a\n1,u,1\n2,,2\n", "line 3, column 'kind'"),
            ("id,kind,a\n1,u,1\n2,v,x\n", "line 3, column 'a': 'x'"),
            ("id,kind,a\n1,u,1\n2,v,\n", "line 3, column 'a': ''"),
            ("id,kind,a\n1,u,1\n2,v,nan\n", "line 3, column 'a': 'nan'"),
            ("id,kind,a\n1,u,1\n2,u,2\n", "two classes"),
            ('id,kind,a\n1,u,"1\n', "line 2"),
            ("id,kind,a\n1,u,1,9\n2,v,2,9\n", "line 2 has 4 cells, its header 3"),
            ("id,kind,a\n1,u,1\n2,v\n", "line 3 has 2 cells, its header 3"),
            ("id,kind,a,a\n1,u,1,2\n2,v,2,3\n", "more than one column 'a'"),
            ("id,kind,a\n\n1,u,1\n\n\n2,v,x\n", "line 6, column 'a': 'x'"),
            ("id,kind,a\n1,u,1\n ,v,2\n", "line 3, column 'id' is empty"),
        ],
    )
    def test_refused(self, text, message, tmp_path):
        with pytest.raises(DataError, match=message):
            SequenceCSVDataModule(write(tmp_path, text, "t.csv"), "id", "kind").load()

    def test_blanks_around_names_do_not_count(self, tmp_path):
        raw = gzip.compress(b"id , kind,a\n1,u ,1\n1 , u, 2\n2,v,3\n")  # by its content, not by its name
        found = read_sequence_csv(write(tmp_path, raw, "t.csv"), "id", "kind")
        assert (found.ptr.tolist(), found.labels, found.x.tolist()) == ([0, 2, 3], ["u", "v"], [[1], [2], [3]])

    @pytest.mark.parametrize(("option", "value"), [("features", "a"), ("delimiter", ";;")])
    def test_arguments(self, option, value, tmp_path):
        with pytest.raises(ValueError, match=f"{option} is '{value}'"):
            read_sequence_csv(write(tmp_path, "id,kind,a\n1,u,1\n", "t.csv"), "id", "kind", **{option: value})


class TestArrays:
    def test_one_class_or_one_number_is_refused(self):
        with pytest.raises(DataError, match="all labels are 1; two"):
            SequenceDataModule([[0.5]] * 20, [1] * 20).load()
        with pytest.raises(DataError, match=r"sequences\[0\] is one number"):
            SequenceDataModule([0.5] * 20, [0, 1] * 10).load()

    def test_several_labels_of_each_are_as_many_outputs(self):
        assert SequenceDataModule([[0.5]] * 20, torch.eye(5, dtype=torch.int64).repeat(4, 1)).num_outputs == 5

    def test_standardised_by_the_training_split(self):
        rows = [torch.randn(3 + n % 4, 2) * 3 + 1 for n in range(40)]
        rows = [torch.cat([row, torch.full((len(row), 1), 0.1)], 1) for row in rows]
        data = SequenceDataModule(rows, [n % 2 for n in range(40)], batch_size=7)
        steps = torch.cat([rows[n] for n in data.splits["train"].tolist()])
        assert torch.allclose(torch.tensor(data.mean), steps.mean(0), atol=1e-6)
        assert torch.allclose(torch.tensor(data.std)[:2], steps.std(0, correction=0)[:2], atol=1e-6)
        assert data.std[2] == 1
        batch = data.store.take(data.splits["test"][:1])
        row = rows[int(data.splits["test"][0])]
        assert torch.allclose(batch.x[0], (row - steps.mean(0)) / torch.tensor(data.std), atol=1e-5)
        plain = SequenceDataModule(rows, [n % 2 for n in range(40)], standardize=False)
        assert torch.equal(plain.store.x, torch.cat(rows))

    def test_a_checkpoint_brings_mean_and_deviation(self):
        def module(scale):
            return SequenceDataModule([[scale * n] * 3 for n in range(20)], [0, 1] * 10)

        first, second = module(1.0), module(100.0)
        second.load()
        second.load_state_dict(first.state_dict())
        assert second.mean == first.mean
        assert torch.allclose(second.store.x, (torch.arange(20.0).repeat_interleave(3)[:, None] * 100 - first.mean[0])
                              / first.std[0])  # fmt: skip
        other = SequenceDataModule([[[1.0, 2.0]]] * 20, [0, 1] * 10)
        with pytest.raises(DataError, match="1 features"):
            other.load_state_dict(first.state_dict())

    def test_kinds_of_labels(self):
        rows = [[0.1 * n] * 3 for n in range(20)]
        assert SequenceDataModule(rows, [0.5 * n for n in range(20)]).num_outputs == 1
        assert SequenceDataModule(rows, [[0.5, 1.0]] * 20).num_outputs == 2
        steps = [[n % 3, -100, 1] for n in range(20)]
        assert SequenceDataModule(rows, step_labels=steps).num_outputs == 3
        store = SequenceStore.from_sequences(rows, y=[0, 1] * 10)
        assert SequenceDataModule(lambda: store).num_outputs == 2

    @pytest.mark.parametrize(
        ("given", "options", "message"),
        [
            ({"sequences": [[1.0]] * 4}, {}, "neither labels nor step_labels"),
            ({"sequences": [[1.0]] * 4, "labels": [0, 1, 0]}, {}, "y has 3"),
            ({"sequences": [[1.0]] * 4, "labels": [0, 1, 0, -1]}, {"stratify": False}, "labels .*-1"),
            ({"sequences": [[1.0]] * 4, "labels": [0, 1, 0, float("nan")]}, {}, r"labels\[3\]"),
            ({"sequences": [[1]] * 4, "labels": [0, 1, 0, 1]}, {}, "torch.int64"),
            ({"sequences": [[1.0, float("nan")]] * 4, "labels": [0, 1, 0, 1]}, {}, "sequence 0, step 1"),
            ({"sequences": [[1.0]] * 4, "step_labels": [[-7]] * 4}, {}, "step_labels .*-7"),
        ],
    )
    def test_refused(self, given, options, message):
        with pytest.raises(DataError, match=message):
            SequenceDataModule(**given, fractions=(0.5, 0.25, 0.25), **options).load()

    def test_transform_gets_the_inputs(self):
        class Double(torch.nn.Module):
            def forward(self, x):
                return 2 * x

        rows = [[0.1 * n] * 3 for n in range(20)]
        plain = SequenceDataModule(rows, [0, 1] * 10)
        data = SequenceDataModule(rows, [0, 1] * 10, train_transform=Double())
        left, right = next(plain.batches()), next(data.batches())
        assert torch.equal(right.x, 2 * left.x)
        assert torch.equal(right.lengths, left.lengths)
        assert torch.equal(next(data.batches("val")).x, next(plain.batches("val")).x)

    def test_similar_lengths(self):
        rows = [[0.1] * (1 + (5 * n) % 13) for n in range(100)]
        loader = SequenceDataModule(rows, [0, 1] * 50, batch_size=8, pool_batches=10).loader("train")
        assert type(loader).__name__ == "BucketLoader"
        assert type(SequenceDataModule(rows, [0, 1] * 50, pool_batches=10).loader("val")).__name__ == "BatchLoader"
        with pytest.raises(ValueError, match="pool_batches is 0"):
            SequenceDataModule(rows, [0, 1] * 50, pool_batches=0)


class TestStrings:
    def test_vocabulary_of_the_training_split(self, tmp_path):
        rows = [
            "s,k",
            *(f"{'ab' * (n + 1)},{n % 2}" for n in range(20)),
            *(f"{chr(99 + n)},{n % 2}" for n in range(12)),
        ]
        path = write(tmp_path, "\n".join([*rows, rows[1]]), "s.csv")
        data = StringDataModule(path, "s", "k", batch_size=32)
        with pytest.warns(UserWarning, match="2 .*vocabulary"):
            data.load()
        assert len(data.store) == 32, "a string that stands twice is taken once"
        seen = {
            char for batch in data.batches("train") for char in data.vocabulary.decode(batch.x[batch.mask].tolist())
        }
        assert {"<unk>", *seen} == set(data.vocabulary.tokens)
        again = StringDataModule(path, "s", "k", seed=1)
        with pytest.warns(UserWarning, match="2 .*vocabulary"):
            again.load()
        before, state = again.splits, data.state_dict()
        with pytest.warns(UserWarning, match="checkpoint .*splits|vocabulary"):
            again.load_state_dict(state)
        assert again.splits is before
        assert again.vocabulary == data.vocabulary
        assert torch.equal(again.store.x, data.store.x)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("s,k\nab,0\n,1\n", "line 3, column 's'"),
            ("s,k\nab,0\nb,\n", "line 3, column 'k'"),
            ("s,k\nab,0\nab,1\n", "'ab' .*labels"),
            ("s,k\nab,0\nb,0\n", "two classes"),
            ("t,k\nab,0\nb,0\n", "no column 's'"),
        ],
    )
    def test_refused(self, text, message, tmp_path):
        with pytest.raises(DataError, match=message):
            StringDataModule(write(tmp_path, text, "s.csv"), "s", "k").load()


def test_waves_by_the_loop():
    generator = torch.Generator().manual_seed(0)
    x, ptr, y, step_y = switching_waves(30, 4, min_length=2, max_length=9, switch=0.5, noise=0.0, generator=generator)
    assert (x.dtype, y.dtype, step_y.dtype) == (torch.float32, torch.int64, torch.int64)
    assert int(ptr.diff().min()) >= 2
    assert int(ptr.diff().max()) <= 9
    for row in range(30):
        begin, end = int(ptr[row]), int(ptr[row + 1])
        assert int(step_y[begin]) == int(y[row])
        for step in range(begin + 2, end):
            # sin(a + w) + sin(a - w) = 2 sin(a) cos(w) where the frequency stays
            if step_y[step] == step_y[step - 1]:
                w = float(step_y[step] + 1) * torch.pi / 8
                expected = 2 * float(x[step - 1]) * torch.cos(torch.tensor(w))
                assert abs(float(x[step]) + float(x[step - 2]) - expected) < 1e-5
    assert set(step_y.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "options", [{"num_sequences": 0}, {"num_classes": 1}, {"min_length": 0}, {"max_length": 3}, {"switch": 2.0}]
)
def test_waves_refuse(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        switching_waves(**{"num_sequences": 3, **options})


def test_synthetic_module_is_a_function_of_the_seed():
    first, second, other = (SyntheticSequencesDataModule(50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.store.x, second.store.x)
    assert not torch.equal(first.store.x[:16], other.store.x[:16])
    batch = next(first.batches())
    assert (batch.y.shape, batch.step_y.shape) == ((40,), batch.x.shape[:2])


def test_japanese_vowels(mirror):
    data = JapaneseVowelsDataModule(batch_size=32)
    assert data.split_sizes() == {"train": 216, "val": 54, "test": 370}
    assert (data.num_features, data.num_outputs) == (12, 9)
    lengths = data.store.lengths
    assert (int(lengths.min()), int(lengths.max())) == (7, 29)
    assert torch.bincount(data.store.y[data.splits["train"]]).tolist() == [24] * 9


def test_reber(mirror):
    data = ReberDataModule(batch_size=32)
    assert len(data.store) == 24_992
    assert (int(data.store.lengths.min()), int(data.store.lengths.max())) == (11, 53)
    assert data.class_names == ["0", "1"]
    batch = next(data.batches("test"))
    valid = batch.x[batch.y == 1]
    assert set(data.vocabulary.decode(valid[valid > 0].tolist())) == set("BEPSTVX")


def test_times_in_seconds_keep_their_differences(tmp_path):
    """In float32 there are 128 seconds from one number to the next."""
    rows = [[1_700_000_000.0 + 3 * n + step for step in range(4)] for n in range(20)]
    table = "id,time,kind\n" + "".join(f"{n},{time:.0f},{'ab'[n % 2]}\n" for n, row in enumerate(rows) for time in row)
    lines = "\n".join(f"{','.join(f'{time:.0f}' for time in row)}:{'ab'[n % 2]}" for n, row in enumerate(rows))
    modules = (
        SequenceDataModule(torch.tensor(rows, dtype=torch.float64), [0, 1] * 10),
        SequenceCSVDataModule(write(tmp_path, table, "steps.csv"), "id", "kind"),
        TSDataModule(write(tmp_path, f"@classLabel true a b\n@data\n{lines}\n")),
    )
    for data in modules:
        taken = data.store.take(torch.arange(20)).x
        assert taken.dtype == torch.float32
        expected = (torch.tensor(rows, dtype=torch.float64) - data.mean[0]) / data.std[0]
        assert torch.allclose(taken[..., 0].double(), expected, atol=1e-5)
        assert data.std[0] == pytest.approx(17, abs=2)


@pytest.mark.parametrize("labels", [["²", "³"], ["--1", "1"], ["10", "9"]])
def test_labels_that_look_like_numbers(labels, tmp_path):
    table = "id,x,kind\n" + "".join(f"{n},{n}.5,{labels[n % 2]}\n" for n in range(4))
    found = read_sequence_csv(write(tmp_path, table, "steps.csv"), "id", "kind").class_names
    assert found == (["9", "10"] if "10" in labels else sorted(labels))
