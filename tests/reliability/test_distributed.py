import os
import socket

import lightning
import pytest
import torch
import torch.multiprocessing
from lightning.pytorch.strategies import DDPStrategy

from graphseq.data import DriverPanelDataModule
from graphseq.models import ReGENN
from graphseq.tasks import Forecasting
from tests.reliability.runs import build, trainer, weights

# 48 training graphs: even shards; shards of 4 and 3; a tail of 3 (2 and 1); a tail of 1 that joins the batch before
BATCH_SIZES = [8, 7, 9, 47]


RUNS = [*BATCH_SIZES, "forecasts"]


def made(name):
    """Task and data of a run: graphs in batches of a size, or forecasts, whose last batches are smaller."""
    if name != "forecasts":
        return build(norm="none", conv="gcn", dropout=0.0, dtype=torch.float64, batch_size=name)
    torch.manual_seed(0)
    network = ReGENN(4, 8, 4, feedforward_size=4, dropout=0.0)
    data = DriverPanelDataModule(num_series=3, steps=60, batch_size=7, eval_batch_size=4)
    return Forecasting(network, metrics=["mae", "rmse", "mase", "smape"], steps=[4], variables=[2]), data


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fit(rank, world_size, port, folder):
    """One of several gloo processes, started by hand so that the test owns them."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        NODE_RANK=str(rank),
        LOCAL_RANK="0",
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
    )
    torch.set_num_threads(1)
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment

    class Environment(TorchElasticEnvironment):
        def local_rank(self):
            return rank

        def global_rank(self):
            return rank

        def world_size(self):
            return world_size

        def validate_settings(self, num_devices, num_nodes):
            pass

    for name in RUNS:
        task, data = made(name)
        strategy = DDPStrategy(process_group_backend="gloo", cluster_environment=Environment())
        run = trainer(strategy=strategy, devices=world_size, precision="64-true", max_epochs=2)
        run.fit(task, data)
        metrics = {name: float(value) for name, value in run.callback_metrics.items()}
        tested = run.test(task, data, verbose=False)[0]
        if rank == 0:
            torch.save({"weights": weights(task), "metrics": metrics, "test": tested}, f"{folder}/{name}.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Everything is fitted by one pair of processes, since starting them costs most of the time."""
    folder = tmp_path_factory.mktemp("ddp")
    torch.multiprocessing.spawn(fit, (2, free_port(), str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_equal_one_with_the_joined_batch(name, two_processes):
    two = torch.load(two_processes / f"{name}.pt", weights_only=True)
    task, data = made(name)
    if name == 47:  # one process would take the tail of one graph as a batch of its own
        data.batch_size = data.eval_batch_size = 48
    run = trainer(precision="64-true", max_epochs=2)
    run.fit(task, data)
    for key, value in weights(task).items():
        torch.testing.assert_close(two["weights"][key], value, rtol=0, atol=1e-10)
    for key, value in run.callback_metrics.items():
        assert two["metrics"][key] == pytest.approx(float(value), abs=1e-6), key
    for key, value in run.test(task, data, verbose=False)[0].items():
        assert two["test"][key] == pytest.approx(value, abs=1e-6), key


def test_more_processes_than_evaluation_samples_is_an_error_not_a_hang():
    from graphseq.core import DataError
    from graphseq.data import BatchLoader, TensorStore

    with pytest.raises(DataError, match="fewer processes"):
        BatchLoader(TensorStore(torch.arange(1)), 4, shuffle=False, rank=0, world_size=2)


def test_lightning_leaves_our_loader_alone():
    # Under DDP Lightning replaces the sampler of loaders it takes for torch's DataLoader. If this fails after an
    # upgrade, see BatchLoader: it must have no attribute `sampler` or `dataset`.
    from graphseq.data import BatchLoader, TensorStore

    loader = BatchLoader(TensorStore(torch.arange(4)), 2, shuffle=True)
    assert not hasattr(loader, "sampler")
    assert not hasattr(loader, "dataset")
    assert loader.batch_sampler.sampler is loader
    assert lightning.__version__
