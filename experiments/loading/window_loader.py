"""A shuffled epoch of windows of time series, by ours, a torch DataLoader over items, and torch-spatiotemporal.

Series of the size of ETTh1 (17,420 steps of 7 series) and METR-LA (34,272 of 207), random numbers; 12 steps to read
and 12 to predict, batches of 64. Ours: ``BatchLoader`` over ``WindowStore``. *items*: ``torch.utils.data.DataLoader``
over a data set whose items are slices of the same tensor, in the main process, the usual way. *tsl*:
``StaticGraphLoader`` over ``SpatioTemporalDataset`` of torch-spatiotemporal, which gathers a batch by one index on
the host; left out where it is not installed. *copy*: a plain copy of the bytes of an epoch, in blocks as
large as ours, the least that any gather must do. On a GPU ours lives there, and each batch of a peer is moved there.

Before anything is timed, every batch of an epoch in the same order is compared, inputs and targets. An epoch includes
drawing its order. Memory is that of the store over that of the raw series.

Rule: claims are 10 times the item loader at the size of ETTh1 and 2.5 times at that of METR-LA, where copying
dominates; at most 1.5 times the time of *copy*; at most 1.1 times the memory of the raw series. The ratio to *tsl* is
reported.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from graphseq.bench import AtLeast, Bytes, Call, OutputsDiffer, Row, Setting, Speed, TakesAtMost, exhaust
from graphseq.data import BatchLoader, WindowStore

SIZES = {"ETTh1": (17_420, 7), "METR-LA": (34_272, 207)}
WINDOW = HORIZON = 12


@dataclass
class Subject:
    """Series (S, steps, 1), our loader over them, and the device where batches are wanted."""

    series: Tensor
    loader: BatchLoader
    device: str

    def moved(self, batches: Any) -> Iterator[Any]:
        """Yield batches of a peer on the device."""
        return iter(batches) if self.device == "cpu" else (batch.to(self.device) for batch in batches)


class Items(Dataset[tuple[Tensor, Tensor]]):
    """Windows as slices of the series, one item at a time."""

    def __init__(self, series: Tensor) -> None:
        self.series = series

    def __len__(self) -> int:
        return self.series.shape[1] - WINDOW - HORIZON + 1

    def __getitem__(self, start: int) -> tuple[Tensor, Tensor]:
        middle = start + WINDOW
        return self.series[:, start:middle], self.series[:, middle : middle + HORIZON]


def prepare(case: Row, setting: Setting) -> Subject:
    """Draw the series of a case."""
    steps, count = SIZES[case["size"]]
    steps = 2_000 if setting.scale == "quick" else steps
    series = torch.randn(count, steps, 1, generator=torch.Generator().manual_seed(0))
    store = WindowStore(series, WINDOW, HORIZON).to(setting.device)
    return Subject(series, BatchLoader(store, 64, shuffle=True), setting.device)


def items(subject: Subject, **order: Any) -> Any:
    """Return the loader over items."""
    return DataLoader(Items(subject.series), 64, **(order or {"shuffle": True}))


def tsl(subject: Subject, **order: Any) -> Any:
    """Return the loader of torch-spatiotemporal; None where it is not installed."""
    if importlib.util.find_spec("tsl") is None:
        return None
    from tsl.data import SpatioTemporalDataset
    from tsl.data.loader import StaticGraphLoader

    dataset = SpatioTemporalDataset(target=subject.series.transpose(0, 1).numpy(), window=WINDOW, horizon=HORIZON)
    return StaticGraphLoader(dataset, batch_size=64, **(order or {"shuffle": True}))


def copies(subject: Subject) -> Call:
    """Return a plain copy of all bytes of an epoch of windows, 2 MB at a time, as ours gathers them."""
    width = len(subject.series) * (WINDOW + HORIZON)
    source = torch.randn(len(subject.loader.index), width, device=subject.device)
    parts = source.split(max(2**21 // (4 * width), 1))
    return lambda: [part.clone() for part in parts][:0]


def peer(make: Callable[..., Any]) -> Callable[[Subject], Call | None]:
    """Return the contender that goes through the batches of a loader."""

    def call(subject: Subject) -> Call | None:
        loader = make(subject)
        return None if loader is None else lambda: exhaust(subject.moved(loader))

    return call


def same_windows(subject: Subject, calls: dict[str, Call]) -> Row:
    """Compare every batch with those of the peers in the same order.

    Raises:
        OutputsDiffer: naming the peer and the first batch that differs.
    """
    order = subject.loader.order().tolist()
    pairs: dict[str, Callable[[Any], tuple[Tensor, Tensor]]] = {
        "items": lambda batch: (batch[0], batch[1]),
        "tsl": lambda batch: (batch.input.x.transpose(1, 2), batch.target.y.transpose(1, 2)),
    }
    for name, make in (("items", items), ("tsl", tsl)):
        if name not in calls:
            continue
        for number, (batch, other) in enumerate(zip(subject.loader, make(subject, sampler=order), strict=True)):
            x, y = pairs[name](other)
            if not (torch.equal(batch.x.cpu(), x) and torch.equal(batch.y.cpu(), y)):
                raise OutputsDiffer(f"batch {number} of {name}")
    return {"memory": subject.loader.store.nbytes / subject.series.nbytes}


def memory(rows: list[Row]) -> list[Any]:
    """Check the memory of the store."""
    from graphseq.bench import Check

    worst = max((row["memory"] for row in rows if "memory" in row), default=None)
    if worst is None:
        return []
    return [Check("the store takes at most 1.1 times the memory of the raw series", worst, 1.1, worst <= 1.1)]


speed = Speed(
    name="speed.window_loader",
    protocol=__doc__,
    cases=[{"size": size} for size in SIZES],
    prepare=prepare,
    contenders={
        "ours": lambda subject: functools.partial(exhaust, subject.loader),
        "items": peer(items),
        "tsl": peer(tsl),
        "copy": copies,
    },
    equal=same_windows,
    limit=lambda subject: Bytes(2 * len(subject.loader.index) * len(subject.series) * (WINDOW + HORIZON) * 4),
    columns=["memory"],
    packages={"items": "torch", "tsl": "torch-spatiotemporal"},
    claims=[
        AtLeast("ours/items", 10, where={"size": "ETTh1"}),
        AtLeast("ours/items", 2.5, where={"size": "METR-LA"}),
        TakesAtMost("ours/copy", 1.5),
        memory,
    ],
)
