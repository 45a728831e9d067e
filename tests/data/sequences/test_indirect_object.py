import pytest
import torch

from graphseq.core.batches import IGNORED
from graphseq.data import IndirectObjectDataModule, indirect_objects, swap_subjects


def test_the_answer_is_the_name_that_occurs_once():
    x, y = indirect_objects(300, num_names=5, num_fillers=3, length=7, generator=torch.Generator().manual_seed(0))
    asked = set()
    for row, answer in zip(x.tolist(), y.tolist(), strict=True):
        names = [token for token in row if token < 5]
        assert row[-1] == 8
        assert all(token < 8 for token in row[:-1])
        assert len(names) == 3
        assert names.count(answer) == 1
        assert names.count(row[-2]) == 2
        asked.add((row.index(answer), row.index(row[-2])))
    assert asked == {(a, b) for a in range(5) for b in range(5) if a != b}
    corrupted, wrong = swap_subjects(x, y)
    assert torch.equal(corrupted[:, :-2], x[:, :-2])
    for row, answer, before in zip(corrupted.tolist(), wrong.tolist(), y.tolist(), strict=True):
        assert row.count(answer) == 1
        assert row.count(before) == 2
    x, y = indirect_objects(50, places=(1, 4))
    assert ((x[:, [1, 4]] < 16).all(1)).all()
    assert (x[:, [0, 2, 3, 5, 6, 7]] >= 16).all()


def test_module_asks_at_the_last_step():
    data = IndirectObjectDataModule(50, num_names=5, num_fillers=3, length=7, batch_size=8, seed=3)
    assert (data.vocab_size, data.num_outputs) == (9, 5)
    batch = next(data.batches())
    assert batch.x.shape == batch.step_y.shape == (8, 7)
    assert (batch.step_y[:, :-1] == IGNORED).all()
    assert ((batch.x == batch.step_y[:, -1:]).sum(1) == 1).all()
    again = IndirectObjectDataModule(50, num_names=5, num_fillers=3, length=7, seed=3)
    assert torch.equal(data.store.x, again.store.x)
    assert data.draw(4, torch.Generator().manual_seed(0), (0, 2))[0].shape == (4, 7)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_names": 1}, "num_names is 1"),
        ({"length": 3}, "length is 3"),
        ({"num_fillers": 0}, "num_fillers is 0"),
        ({"places": (2, 2)}, r"\(2, 2\)"),
        ({"places": (1, 8)}, r"\(1, 8\)"),
    ],
)
def test_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        indirect_objects(4, **options)


def test_too_few_prompts():
    with pytest.raises(ValueError, match="num_sequences is 9"):
        IndirectObjectDataModule(9)
