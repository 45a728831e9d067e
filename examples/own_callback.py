"""A callback of one's own that prunes a trained network, and a run that resumes exactly.

The pattern: a layer owns its mask as a buffer, so that the network works without the callback; the callback keeps only
its decisions, in its ``state_dict``.
"""

import functools
import tempfile
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

import graphseq
from graphseq.core import quiet_lightning, replace
from graphseq.data import ImageDataModule
from graphseq.models import MLP
from graphseq.nn import MaskedLinear
from graphseq.tasks import Classification

torch.set_num_threads(1)
quiet_lightning()
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def masked(layer):
    """Return a masked layer with the weights of a dense one."""
    new = MaskedLinear(layer.in_features, layer.out_features)
    new.load_state_dict({**layer.state_dict(), "mask": torch.ones_like(layer.weight, dtype=torch.bool)})
    return new


def load_masked(path):
    task = graphseq.load(path)
    replace(task.model, lambda name, layer: type(layer) is nn.Linear, masked)
    return task


def keep_largest(task, density):
    """Mask all weights of a task but a share of them, the largest of all layers together."""
    layers = [layer for layer in task.modules() if isinstance(layer, MaskedLinear)]
    size = torch.cat([layer.weight.detach().abs().flatten() for layer in layers])
    kept = torch.zeros_like(size, dtype=torch.bool)
    kept[size.topk(round(density * len(size))).indices] = True
    for layer, mask in zip(layers, kept.split([layer.weight.numel() for layer in layers]), strict=True):
        layer.set_mask(mask.view_as(layer.weight))


class GradualPruning(Callback):
    """Removes a share of the smallest remaining weights before each epoch, until a density is reached."""

    def __init__(self, share=0.3, density=0.1):
        self.share, self.density = share, density
        self.reached = []  # density after each pruning: what this callback decided so far

    def on_train_epoch_start(self, trainer, task):
        target = max((self.reached[-1] if self.reached else 1.0) * (1 - self.share), self.density)
        keep_largest(task, target)
        self.reached.append(target)

    def state_dict(self):
        return {"reached": self.reached}

    def load_state_dict(self, state):
        self.reached = list(state["reached"])


def prune(dense, folder, epochs, resume=None):
    """Prune the network of a checkpoint and train the rest; return task and test accuracy."""
    lightning.seed_everything(0, verbose=False)
    task, data = load_masked(dense), ImageDataModule("digits")
    trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=folder, callbacks=[GradualPruning()], **QUIET)
    trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    return task, trainer.test(task, data, verbose=False)[0]["test/acc"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), ImageDataModule("digits")
        model, adam = MLP(data.input_size, data.num_outputs, 64), functools.partial(torch.optim.Adam, lr=3e-3)
        trainer = lightning.Trainer(max_epochs=15, default_root_dir=folder, **QUIET)
        trainer.fit(Classification(model, data.num_outputs, optimizer=adam), data)
        trainer.save_checkpoint(folder / "dense.ckpt")
        at_once = load_masked(folder / "dense.ckpt")
        keep_largest(at_once, 0.1)
        baseline = trainer.test(at_once, data, verbose=False)[0]["test/acc"]

        whole, accuracy = prune(folder / "dense.ckpt", folder / "whole", epochs=10)
        prune(folder / "dense.ckpt", folder / "stopped", epochs=4)
        resumed, _ = prune(folder / "dense.ckpt", folder / "resumed", epochs=10, resume=folder / "stopped/last.ckpt")
        loaded = graphseq.load(folder / "resumed" / "last.ckpt")  # without the callback
        density = [f"{layer.density:.2f}" for layer in loaded.modules() if isinstance(layer, MaskedLinear)]
        print(f"density of the layers {', '.join(density)}")
        print(f"test accuracy {accuracy:.3f}; baseline, pruned at once {baseline:.3f}")
        same = all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
        print(f"resumed run equals the uninterrupted one: {same}")
