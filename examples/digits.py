"""Train a graph network on handwritten digits as pixel graphs and test it on noisy ones; writes runs/digits.png.

The baseline is the same network on the same pixels without edges: what it lacks is what the graph gives.
"""

import functools
import time
from pathlib import Path

import lightning
import matplotlib
import torch
from lightning.pytorch.callbacks import Callback

from graphseq.core import quiet_lightning
from graphseq.data import DigitGraphsDataModule
from graphseq.models import GraphClassifier
from graphseq.tasks import Classification

torch.set_num_threads(1)  # these graphs are small: a second thread costs more than it gives
matplotlib.use("Agg")
from matplotlib import pyplot

quiet_lightning()


class WithoutEdges(torch.nn.Module):
    """Batched transform: the same nodes, no edges."""

    def forward(self, batch):
        batch.edge_index, batch.edge_attr = batch.edge_index[:, :0], batch.edge_attr[:0]
        return batch


class Curve(Callback):
    """Keeps the validation accuracy of each epoch."""

    def __init__(self):
        self.accuracy = []

    def on_validation_end(self, trainer, task):
        if not trainer.sanity_checking:
            self.accuracy.append(float(trainer.callback_metrics["val/acc"]))


def train(transform, epochs=15):
    """Return the validation curve and the accuracy on clean and on noisy test graphs."""
    lightning.seed_everything(0, verbose=False)
    data = DigitGraphsDataModule(shift="noise", strength=0.1, train_transform=transform, eval_transform=transform)
    model = GraphClassifier(
        data.num_features,
        data.num_outputs,
        hidden_channels=48,
        num_layers=4,
        conv="gine",
        edge_channels=data.num_edge_features,
    )
    task = Classification(
        model,
        data.num_outputs,
        optimizer=functools.partial(torch.optim.Adam, lr=5e-3),
        scheduler=functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs),
    )
    curve = Curve()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[curve], **quiet)
    trainer.fit(task, data)
    noisy = trainer.test(task, data, verbose=False)[0]["test/acc"]
    data.splits["test"] = data.clean_test
    clean = trainer.test(task, data, verbose=False)[0]["test/acc"]
    return curve.accuracy, clean, noisy


if __name__ == "__main__":
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    print(f"{'network':<14}{'clean test':>12}{'noisy test':>12}{'seconds':>10}")
    for name, transform in (("GINE", None), ("without edges", WithoutEdges())):
        start = time.perf_counter()
        accuracy, clean, noisy = train(transform)
        print(f"{name:<14}{clean:>12.3f}{noisy:>12.3f}{time.perf_counter() - start:>10.1f}", flush=True)
        (line,) = axes.plot(range(1, len(accuracy) + 1), accuracy, label=f"{name}, clean validation graphs")
        axes.axhline(noisy, color=line.get_color(), linestyle=":", label=f"{name}, noisy test graphs")
    axes.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1), title="The edges carry the digit; noise costs accuracy")
    axes.legend(loc="center right", fontsize="small")
    target = Path("runs/digits.png")
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=150)
    print(f"figure {target}; the network without edges is the baseline")
