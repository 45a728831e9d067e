"""Tasks from images: which samples, which labels, which pixels, whose turn, and what is refused."""

import pytest
import torch

from graphseq.core import DataError
from graphseq.data import ImageDataModule, PermutedTasksDataModule, SplitTasksDataModule


@pytest.fixture(scope="module")
def split():
    return SplitTasksDataModule("digits", epochs_per_task=2, order=[4, 2, 0, 1, 3], batch_size=32, seed=1)


def test_split_tasks_have_their_classes_and_labels_within(split):
    images = ImageDataModule("digits", batch_size=2000, seed=1)
    x, classes = next(images.batches("test"))
    for task, first in enumerate([8, 4, 0, 2, 6]):
        batches = [batch for batch in split.batches("test") if batch.task == task]
        mine = (classes == first) | (classes == first + 1)
        assert torch.equal(torch.cat([batch.x for batch in batches]).sort(0)[0], x[mine].sort(0)[0])
        assert sum(int(batch.y.sum()) for batch in batches) == int((classes == first + 1).sum())
    assert split.num_outputs == 2


def test_epochs_belong_to_tasks(split):
    loader = split.train_dataloader()
    turns, sizes, first = [], set(), []
    for epoch in range(11):
        loader.set_epoch(epoch)
        batches = list(loader)
        turns.append({batch.task for batch in batches})
        sizes.add(len(batches))
        first.append(batches[0].x)
    assert turns == [{0}, {0}, {1}, {1}, {2}, {2}, {3}, {3}, {4}, {4}, {4}]
    assert sizes == {len(loader)}
    assert not torch.equal(first[0], first[1])  # shuffled anew


def test_position_of_a_task_is_restored(split):
    loader, other = split.train_dataloader(), split.train_dataloader()
    loader.set_epoch(5)
    reader = iter(loader)
    for _ in range(3):
        next(reader)
    other.load_state_dict(loader.state_dict())
    other.set_epoch(5)
    rest, again = list(reader), list(other)
    assert [batch.task for batch in again] == [2] * (len(loader) - 3)
    assert all(torch.equal(one.x, two.x) for one, two in zip(rest, again, strict=True))


def test_permuted_tasks_have_other_pixels():
    data = PermutedTasksDataModule("digits", 3, order=[1, 0, 2], eval_batch_size=2000, seed=2)
    batches = list(data.batches("test"))
    plain = batches[1].x
    assert [batch.task for batch in batches] == [0, 1, 2]
    assert torch.equal(plain, next(ImageDataModule("digits", batch_size=2000, seed=2).batches("test"))[0])
    for batch, task in ((batches[0], 1), (batches[2], 2)):
        pixels = data.pixels(task, 64).tolist()
        assert sorted(pixels) == list(range(64))
        for place in (0, 17, 63):
            assert torch.equal(batch.x.flatten(1)[:, place], plain.flatten(1)[:, pixels[place]])
        assert torch.equal(batch.y, batches[1].y)


def test_order_is_that_of_the_checkpoint(split):
    drawn = PermutedTasksDataModule("digits", 6, seed=1)
    other = PermutedTasksDataModule("digits", 6, seed=1, order=list(range(6)))
    assert sorted(drawn.order) == list(range(6)) != drawn.order
    other.load_state_dict(drawn.state_dict())
    assert other.order == drawn.order
    with pytest.raises(DataError, match="6 tasks"):
        PermutedTasksDataModule("digits", 5, seed=1).load_state_dict(drawn.state_dict())


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ([[0, 1], [1, 2]], "class 1 appears twice"),
        ([[0, 1], [2, 3, 4]], "same number"),
        ([[0], [1]], "at least two"),
        ([[0, 10], [1, 2]], "class 10"),
    ],
)
def test_bad_groups(groups, named):
    with pytest.raises(ValueError, match=named):
        SplitTasksDataModule("digits", groups)


def test_bad_arguments():
    for options, named in (({"order": [0, 0, 1]}, "order"), ({"epochs_per_task": 0}, "epochs_per_task")):
        with pytest.raises(ValueError, match=named):
            PermutedTasksDataModule("digits", 3, **options)
    with pytest.raises(ValueError, match="num_tasks"):
        PermutedTasksDataModule("digits", 0)
    with pytest.raises(DataError, match="tuple without the number of its task"):
        PermutedTasksDataModule("digits", 2).transformed((torch.zeros(1, 1, 8, 8), torch.zeros(1)), "test")
