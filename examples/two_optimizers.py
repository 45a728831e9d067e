"""A procedure with two optimisers and two schedulers that take turns, and a run that resumes exactly.

The pattern for adversarial, alternating and reinforcement learning: manual optimisation, steps through
``self.optimizers()``. A critic guesses from a digit's features whether it was brightened; the network hides it.
"""

import functools
import tempfile
from pathlib import Path
from typing import Unpack

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.optim import Adam, lr_scheduler

from graphseq.core import make, quiet_lightning
from graphseq.data import BatchLoader, TensorStore
from graphseq.models import MLP
from graphseq.tasks import Step, Task, TaskOptions

torch.set_num_threads(1)
quiet_lightning()
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class AdversarialInvariance(Task):
    """Classification whose features hide a nuisance from a critic."""

    def __init__(self, model: nn.Module, critic: nn.Module, weight: float = 1.0, **options: Unpack[TaskOptions]):
        super().__init__(model, **options)
        self.automatic_optimization = False
        self.critic, self.weight = critic, weight

    def configure_optimizers(self):
        both = [self.make_optimizer(list(part.parameters())) for part in (self.model, self.critic)]
        return both, [self.make_scheduler(optimizer) for optimizer in both]

    def step(self, batch, stage="train"):
        image, label, nuisance = batch
        features = self.model.encode(image)  # (B, D)
        logits = self.model.head(features)
        hidden = functional.cross_entropy(self.critic(features), nuisance)
        loss = functional.cross_entropy(logits, label) - self.weight * hidden
        return Step(loss, logits, label, len(label), {"critic": hidden})

    def training_step(self, batch, batch_idx):
        network, critic = self.optimizers()
        critic_loss = functional.cross_entropy(self.critic(self.model.encode(batch[0]).detach()), batch[2])
        critic.zero_grad()
        self.manual_backward(critic_loss)
        critic.step()
        loss = self.total_loss(self.step(batch, "train"), batch_idx)  # logs, adds penalties, watches for NaN
        network.zero_grad()
        self.manual_backward(loss)
        network.step()
        if self.trainer.is_last_batch:  # here, since a run resumed from its last batch skips on_train_epoch_end
            for scheduler in self.lr_schedulers():
                scheduler.step()


def digits():
    """Return images, labels and whether each image was brightened: for training, and for the test."""
    x, y = load_digits(return_X_y=True)
    bright = torch.rand(len(y), generator=torch.Generator().manual_seed(0)) < 0.5
    fields = torch.tensor(x / 16).float() + 0.5 * bright[:, None], torch.tensor(y), bright.long()
    return [field[:1400] for field in fields], [field[1400:] for field in fields]


def fit(weight, folder, epochs, resume=None):
    lightning.seed_everything(0, verbose=False)
    optimizer, scheduler = functools.partial(Adam, lr=1e-3), functools.partial(lr_scheduler.StepLR, step_size=10)
    parts = MLP(64, 10, 64), make(nn.Linear, 64, 2), weight
    task = AdversarialInvariance(*parts, optimizer=optimizer, scheduler=scheduler)
    trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=folder, **QUIET)
    train, test = (BatchLoader(TensorStore(*fields), 64, shuffle=index == 0) for index, fields in enumerate(digits()))
    trainer.fit(task, train, test, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    return task


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder, (image, label, nuisance) = Path(name), digits()[1]
        for weight in (0.0, 1.0):
            task = fit(weight, folder / f"weight {weight}", epochs=20)
            right = (task.model(image).argmax(1) == label).float().mean()
            told = (task.critic(task.model.encode(image)).argmax(1) == nuisance).float().mean()
            print(f"weight {weight}: digits right {right:.2f}, critic right {told:.2f}")
        most, half = (float(found.bincount().max() / len(found)) for found in (label, nuisance))
        print(f"baseline of guessing: digits right {most:.2f}, critic right {half:.2f}")
        fit(1.0, folder / "stopped", epochs=7)
        again = fit(1.0, folder / "resumed", epochs=20, resume=folder / "stopped/last.ckpt")
        same = all(torch.equal(value, again.state_dict()[name]) for name, value in task.state_dict().items())
        print(f"resumed run equals the uninterrupted one: {same}")
