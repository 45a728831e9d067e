"""Transforms run on whole batches on the device and give what they give on the host."""

import torch
from torch import nn

from graphseq.data import Compose, GaussianNoise, Normalize, RandomCrop, RandomHorizontalFlip, ToFloat
from tests.gpu.families import build, trainer


def pixels(device):
    return torch.randint(0, 256, (16, 3, 9, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(
        device
    )


def test_normalisation_is_that_of_the_host(device):
    transform = Compose([ToFloat(), Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])])
    host = transform(pixels("cpu"))
    there = transform.to(device)(pixels(device))
    assert there.device.type == device.type
    torch.testing.assert_close(there.cpu(), host)


def test_each_crop_is_a_window_of_its_image(device):
    given = pixels(device)
    cut = RandomCrop(2)(given)
    assert (cut.device.type, cut.dtype, cut.shape) == (device.type, torch.uint8, given.shape)
    windows = nn.functional.pad(given, [2] * 4).unfold(2, 9, 1).unfold(3, 8, 1)  # (B, C, 5, 5, 9, 8)
    same = (windows == cut[:, :, None, None]).flatten(4).all(-1).all(1)  # (B, 5, 5)
    assert bool(same.flatten(1).any(1).all())


def test_a_flip_mirrors_some_images_whole(device):
    given = pixels(device)
    flipped = RandomHorizontalFlip()(given)
    mirrored = (flipped == given.flip(-1)).flatten(1).all(1)
    assert bool((mirrored | (flipped == given).flatten(1).all(1)).all())
    assert 0 < int(mirrored.sum()) < 16


def test_noise_is_drawn_on_the_device(device):
    noisy = GaussianNoise(0.5)(torch.zeros(4, 1, 50, 50, device=device))
    assert noisy.device.type == device.type
    assert abs(float(noisy.std()) - 0.5) < 0.05


class AddDegree(nn.Module):
    """Appends the in-degree of each node to its features."""

    def forward(self, batch):
        degree = torch.zeros(batch.num_nodes, device=batch.x.device)
        degree.index_add_(0, batch.edge_index[1], torch.ones(batch.num_edges, device=batch.x.device))
        batch = batch.clone()
        batch.x = torch.cat([batch.x, degree[:, None]], dim=1)
        return batch


def test_a_transform_of_graphs_runs_on_the_device(device):
    from graphseq.models import GraphClassifier
    from graphseq.tasks import Classification
    from tests.gpu.families import motifs

    data = motifs(train_transform=AddDegree(), eval_transform=AddDegree())
    task = Classification(GraphClassifier(9, 2, hidden_channels=8, num_layers=1, conv="gin"), num_outputs=2)
    fit = trainer(device, limit_train_batches=2, limit_val_batches=1)
    fit.fit(task, data)
    assert torch.isfinite(fit.callback_metrics["train/loss"])


def test_augmented_images_train_on_the_device(device):
    task, data = build("images")
    fit = trainer(device, limit_train_batches=3)
    fit.fit(task, data)
    assert torch.isfinite(fit.callback_metrics["val/loss"])
