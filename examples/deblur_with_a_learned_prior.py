"""Blurred digits restored with a prior learned from clean ones: a convex network, its prior, and a picture."""

import functools

import lightning
import matplotlib
import torch

from graphseq.analysis import plug_and_play_admm
from graphseq.callbacks import ProximalAnnealing
from graphseq.core import quiet_lightning
from graphseq.data import DenoisingImagesDataModule
from graphseq.models import LearnedProximal
from graphseq.nn import Blur, InputConvexNetwork, ProximalMatchingLoss, gaussian_kernel
from graphseq.tasks import Regression

matplotlib.use("Agg")
torch.set_num_threads(1)
quiet_lightning()
lightning.seed_everything(0, verbose=False)

# a denoiser that is the gradient of a convex function, and therefore the proximal operator of a prior
data = DenoisingImagesDataModule("digits", noise=0.2, batch_size=64)
network = LearnedProximal(InputConvexNetwork(64, hidden_features=100, num_layers=3), alpha=0.01)
adam = functools.partial(torch.optim.Adam, lr=4e-3)
task = Regression(network, loss=ProximalMatchingLoss(gamma=1.28), optimizer=adam)
annealing = ProximalAnnealing([(500, None, 4e-3), (200, 5.12, 4e-3), (200, 2.56, 2e-3), (200, 1.28, 1e-3)])
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
lightning.Trainer(max_epochs=50, accelerator="cpu", limit_val_batches=0, callbacks=[annealing], **quiet).fit(task, data)


def psnr(images):
    return float((-10 * (images - clean).square().flatten(1).mean(1).log10()).mean())


# test images, blurred and with noise, which the network has never seen; it was not trained on blur either
clean = next(data.batches("test"))[1][:50]
operator = Blur(gaussian_kernel(5, sigma=1.0))
measured = operator(clean) + 0.02 * torch.randn_like(clean)
restored = plug_and_play_admm(measured, operator, network, rho=0.1, num_iterations=30)
print(f"PSNR of restored digits {psnr(restored.images):.1f} dB; baseline, as measured {psnr(measured):.1f} dB")
print(f"change of the first iteration {restored.changes[0]:.4f}, of the last {restored.changes[-1]:.4f}")

# the prior that the network stands for is higher for images with noise
means = [float(network.prior(clean + level * torch.randn_like(clean), 1e-4).mean()) for level in (0.0, 0.1, 0.2)]
print("learned prior at noise 0.0, 0.1 and 0.2, less that of clean digits:", *(f"{m - means[0]:.2f}" for m in means))

figure = matplotlib.figure.Figure(figsize=(7, 3.2), layout="constrained")
grid = figure.subplots(3, 8)
for axes, name, images in zip(grid, ("true", "measured", "restored"), (clean, measured, restored.images), strict=True):
    for place, image in zip(axes, images, strict=False):
        place.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
        place.set(xticks=[], yticks=[])
    axes[0].set_ylabel(name)
figure.savefig("deblurred.png", dpi=120)
print("deblurred.png has eight of the images")
