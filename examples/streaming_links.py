"""Train on the past, then read a file that goes on growing: score its lines, rank what is next, let them be seen."""

import functools
import tempfile
import threading
import time
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import graphseq
from graphseq.core import quiet_lightning
from graphseq.data import SyntheticEventsDataModule
from graphseq.models import TGN, LinkStream
from graphseq.tasks import TemporalLinkPrediction

torch.set_num_threads(1)
quiet_lightning()


def train(data, folder):
    """Return the path of the best epoch's checkpoint: weights, and the memory of all events up to the test's."""
    network = TGN(data.num_nodes, memory_dim=32, time_dim=32, embedding_dim=32, num_neighbors=5)
    task = TemporalLinkPrediction(network, optimizer=functools.partial(torch.optim.Adam, lr=3e-3))
    best = ModelCheckpoint(Path(folder) / "best", monitor=task.monitor, mode=task.mode)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    lightning.Trainer(max_epochs=6, accelerator="cpu", callbacks=[best], **quiet).fit(task, data)
    return best.best_model_path


def feed(path, rows):
    """Append events to the file as they happen, in pieces that may end within a line."""
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    with open(path, "a") as file:
        for begin in range(0, len(text), 997):
            file.write(text[begin : begin + 997])
            file.flush()
            time.sleep(0.02)


def chunks(path, size, writer):
    """Yield sources, destinations and times of a few lines at a time, while somebody writes them."""
    lines, rest = [], ""
    with open(path) as file:
        file.readline()  # the names of the columns
        while True:
            going_on = writer.is_alive()  # asked first: what was written before it ended is read below
            *whole, rest = (rest + file.read()).split("\n")
            lines += whole
            while len(lines) >= size or (lines and not going_on):
                rows, lines = lines[:size], lines[size:]
                yield torch.tensor([[int(number) for number in row.split(",")] for row in rows]).unbind(1)
            if not going_on:
                return
            time.sleep(0.01)


if __name__ == "__main__":
    lightning.seed_everything(0, verbose=False)
    data = SyntheticEventsDataModule(num_events=4000, num_sources=40, num_destinations=30, period=1, batch_size=50)
    with tempfile.TemporaryDirectory() as folder:
        live, saved = Path(folder) / "live.csv", Path(folder) / "stream.pt"
        count = len(data.events) - data.split_sizes()["test"]
        past, new = data.events[:count], data.events[count:]
        favourites = past.dst.bincount().topk(3).indices  # baseline: the same three for everybody
        rows = torch.stack([new.src, new.dst, new.t + new.time_offset], dim=1).tolist()
        live.write_text("src,dst,t\n")

        checkpoint = train(data, folder)
        stream = LinkStream.from_history(graphseq.load(checkpoint).model, data)
        print(f"{stream}\n{'events':>7}{'p(event)':>10}{'p(other)':>10}{'in top 3':>10}{'baseline':>10}")
        writer = threading.Thread(target=feed, args=(live, rows))
        writer.start()
        for src, dst, t in chunks(live, 100, writer):
            other = data.num_sources + torch.randint(30, dst.shape)
            top = stream.rank(src, None, t, k=3)[0]  # among all destinations seen so far
            found = (top == dst[:, None]).any(1).float().mean()
            print(f"{len(src):>7}{stream.score(src, dst, t).mean():>10.2f}", end="")
            usual = torch.isin(dst, favourites).float().mean()
            print(f"{stream.score(src, other, t).mean():>10.2f}{found:>10.2f}{usual:>10.2f}")
            stream.observe(src, dst, t)  # one update of memory a chunk
        torch.save(stream.state_dict(), saved)

        again = LinkStream(graphseq.load(checkpoint).model)  # after a restart
        again.load_state_dict(torch.load(saved, weights_only=True))
        ids, scores = again.rank(7, None, int(t[-1]) + 60, k=3)
        print(f"next of node 7: {ids[0].tolist()}, p = {[round(p, 2) for p in scores[0].tolist()]}")
