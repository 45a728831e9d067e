import os
import socket

import lightning
import pytest
import torch
import torch.multiprocessing
from lightning.pytorch.strategies import DDPStrategy

from tests.reliability.runs import build, trainer, weights

# 48 training graphs: even shards; shards of 4 and 3; a tail of 3 (2 and 1); a tail of 1 that joins the batch before
BATCH_SIZES = [8, 7, 9, 47]


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

    for batch_size in BATCH_SIZES:
        task, data = build(norm="none", conv="gcn", dropout=0.0, dtype=torch.float64, batch_size=batch_size)
        strategy = DDPStrategy(process_group_backend="gloo", cluster_environment=Environment())
        run = trainer(strategy=strategy, devices=world_size, precision="64-true", max_epochs=2)
        run.fit(task, data)
        metrics = {name: float(value) for name, value in run.callback_metrics.items()}
        tested = run.test(task, data, verbose=False)[0]
        if rank == 0:
            torch.save({"weights": weights(task), "metrics": metrics, "test": tested}, f"{folder}/{batch_size}.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Everything is fitted by one pair of processes, since starting them costs most of the time."""
    folder = tmp_path_factory.mktemp("ddp")
    torch.multiprocessing.spawn(fit, (2, free_port(), str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_two_processes_equal_one_with_the_joined_batch(batch_size, two_processes):
    two = torch.load(two_processes / f"{batch_size}.pt", weights_only=True)
    task, data = build(norm="none", conv="gcn", dropout=0.0, dtype=torch.float64, batch_size=batch_size)
    if batch_size == 47:  # one process would take the tail of one graph as a batch of its own
        data.batch_size = data.eval_batch_size = 48
    run = trainer(precision="64-true", max_epochs=2)
    run.fit(task, data)
    for name, value in weights(task).items():
        torch.testing.assert_close(two["weights"][name], value, rtol=0, atol=1e-10)
    for name, value in run.callback_metrics.items():
        assert two["metrics"][name] == pytest.approx(float(value), abs=1e-6), name
    for name, value in run.test(task, data, verbose=False)[0].items():
        assert two["test"][name] == pytest.approx(value, abs=1e-6), name


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
