"""A CSV of your own, with names and dates, to ranked candidates: who buys what next?"""

import datetime
import functools
import random
import tempfile
from pathlib import Path

import lightning
import torch

from graphseq.core import quiet_lightning
from graphseq.data import EventCSVDataModule
from graphseq.models import TGN, LinkStream
from graphseq.tasks import TemporalLinkPrediction

torch.set_num_threads(1)
quiet_lightning()


def write_purchases(path):
    """Write a file as a shop has it: names, dates with a time zone; each customer has one favourite."""
    draw, now = random.Random(0), datetime.datetime.fromisoformat("2024-01-05T10:00+02:00")
    items, lines = [f"item{number}" for number in range(30)], ["who,what,when"]
    favourite = {f"customer{number}": draw.choice(items) for number in range(40)}
    for _ in range(4000):
        now += datetime.timedelta(minutes=draw.randrange(10))
        who = draw.choice(list(favourite))
        what = favourite[who] if draw.random() < 0.9 else draw.choice(items)
        lines.append(f"{who},{what},{now.isoformat()}")
    path.write_text("\n".join(lines) + "\n")


def train(path):
    """Return the events of a file and a network that was trained on the first 70 % of them."""
    data = EventCSVDataModule(path, bipartite=True, batch_size=50, eval_batch_size=100)
    network = TGN(data.num_nodes, memory_dim=32, time_dim=16, embedding_dim=32, num_neighbors=5)
    task = TemporalLinkPrediction(network, optimizer=functools.partial(torch.optim.Adam, lr=3e-3))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    lightning.Trainer(max_epochs=6, accelerator="cpu", enable_model_summary=False, **quiet).fit(task, data)
    return data, network


if __name__ == "__main__":
    lightning.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "purchases.csv")
        write_purchases(path)
        data, network = train(path)

    stream = LinkStream.from_history(network, data, replay=True)  # all events but those of the test split
    events, test = data.events, data.splits["test"]
    popular = events.dst[: int(test[0])].bincount().topk(3).indices
    hits = baseline = 0
    for part in test.split(100):
        who, what, t = events.ids_of(events.src[part]), events.ids_of(events.dst[part]), events.t[part]
        best, _ = stream.rank(who, None, t + events.time_offset, k=3)  # among all items bought so far
        hits += sum(item in three for item, three in zip(what, best.tolist(), strict=True))
        baseline += int(torch.isin(events.dst[part], popular).sum())
        stream.observe(who, what, t + events.time_offset)

    ids, scores = stream.rank("customer7", None, "2024-01-19T10:00+02:00", k=3)
    print(f"customer7 buys next: {', '.join(ids[0])}; p = {[round(p, 2) for p in scores[0].tolist()]}")
    print(f"bought is one of the first 3: {hits / len(test):.2f}; baseline, 3 most popular: {baseline / len(test):.2f}")
