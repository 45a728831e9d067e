"""Hypernetworks of tasks: weights in chunks, from an embedding of the task and one of the chunk."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.core.elastic import Elastic
from graphseq.nn.hyper.generated import GeneratedNetwork

__all__ = ["ChunkedHyperNetwork", "TaskHyperNetwork"]


class TaskHyperNetwork(GeneratedNetwork, Elastic):
    r"""Base of hypernetworks that generate the weights of one network for each of several tasks, chunk by chunk.

    .. math:: \theta_t = o + s \odot \mathrm{cut}(r_1, \dots, r_L), \qquad r_i \in R^S

    A layer with n weights takes :math:`\lceil n / S \rceil` chunks; the surplus of its last chunk is dropped. At
    initialisation the chunks have variance 1, and the scale s of each tensor is the standard deviation of the network's
    own initial weights, so that generated weights start with the spread of that initialisation. A tensor whose initial
    values are all equal, such as the weight of a norm layer, has that value as its offset o and a scale of 0.1.

    A subclass defines :meth:`chunks`.

    Args:
        network: network whose trainable weights are generated; its first axis is the batch.
        num_tasks: number T of tasks, at least 1; :meth:`add_task` adds one later.
        task_size: size of the embedding of a task, at least 1.
        layer_size: size of the embedding of a chunk, at least 1.
        chunk_size: number S of weights in a chunk, at least 1.

    Shape:
        x (B, \*), task an integer -> the output of the network, (B, \*)

    Raises:
        ValueError: if a size is below 1, or no parameter of the network requires a gradient; in ``forward`` if there is
            no such task.

    Example:
        >>> hyper = ChunkedHyperNetwork(nn.Linear(3, 4), num_tasks=2, chunk_size=6)
        >>> hyper.num_chunks, hyper(torch.ones(5, 3), task=1).shape
        (3, torch.Size([5, 4]))
    """

    scale: Tensor
    offset: Tensor
    _kept: Tensor
    _repeats: Tensor

    def __init__(self, network: nn.Module, num_tasks: int, task_size: int, layer_size: int, chunk_size: int) -> None:
        super().__init__(network)
        sizes = {"num_tasks": num_tasks, "task_size": task_size, "layer_size": layer_size, "chunk_size": chunk_size}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        self.task_size, self.layer_size, self.chunk_size = task_size, layer_size, chunk_size
        kept: list[Tensor] = []
        self.num_chunks = 0
        for _, names in itertools.groupby(self.shapes, lambda name: name.rpartition(".")[0]):
            count = sum(self.shapes[name].numel() for name in names)
            kept.append(torch.arange(count) + self.num_chunks * chunk_size)
            self.num_chunks += -(-count // chunk_size)
        self.register_buffer("_kept", torch.cat(kept), persistent=False)
        initial = self.initial_weights().split(self._sizes)
        constant = torch.tensor([bool((part == part[0]).all()) for part in initial])
        deviation = torch.stack([part.std(correction=0) for part in initial])
        self.register_buffer("scale", torch.where(constant, torch.full_like(deviation, 0.1), deviation))
        self.register_buffer("offset", torch.stack([part[0] for part in initial]) * constant)
        self.register_buffer("_repeats", torch.tensor(self._sizes), persistent=False)
        self.task_embeddings = nn.ParameterList([torch.zeros(task_size) for _ in range(num_tasks)])
        self.chunk_embeddings = nn.Parameter(torch.zeros(self.num_chunks, layer_size))

    @property
    def num_tasks(self) -> int:
        """Number of tasks that have an embedding."""
        return len(self.task_embeddings)

    @torch.no_grad()
    def add_task(self) -> None:
        """Add a task with a random embedding; call it before the optimiser is built."""
        self.task_embeddings.append(nn.Parameter(torch.randn_like(self.chunk_embeddings[0, :1].expand(self.task_size))))

    def make_room(self, saved: Mapping[str, Tensor]) -> None:
        """Add embeddings until there is one for each task of a saved state.

        Args:
            saved: state dict of this module.
        """
        while f"task_embeddings.{self.num_tasks}" in saved:
            self.add_task()

    def reset_embeddings(self) -> None:
        """Redraw all embeddings from the standard normal distribution."""
        for embedding in self.parameters():
            if embedding is self.chunk_embeddings or any(embedding is each for each in self.task_embeddings):
                nn.init.normal_(embedding)

    @torch.no_grad()
    def standardize(self, output: nn.Linear) -> None:
        """Scale the last layer so that the chunks of all tasks together have variance 1.

        Args:
            output: last layer of the hypernetwork, whose outputs are the chunks.
        """
        nn.init.zeros_(output.bias)
        embeddings = torch.stack(list(self.task_embeddings))
        output.weight.div_(self.chunks(embeddings).flatten(1)[:, self._kept].square().mean().sqrt())

    def chunks(self, embeddings: Tensor) -> Tensor:
        """Return the chunks of some tasks, (T, L, S).

        Args:
            embeddings: embeddings of the tasks, (T, task_size).
        """
        raise TypeError(f"{type(self).__name__} must define chunks(embeddings)")

    def generate(self, embeddings: Tensor) -> Tensor:
        """Return all weights for each of some tasks, (T, P).

        Args:
            embeddings: embeddings of the tasks, (T, task_size).
        """
        flat = self.chunks(embeddings).flatten(1).index_select(1, self._kept)  # (T, P)
        scale, offset = (each.repeat_interleave(self._repeats, output_size=self.num_weights)
                         for each in (self.scale, self.offset))  # fmt: skip
        return offset + scale * flat

    def embedding(self, task: int) -> Tensor:
        """Return the embedding of a task, (task_size,).

        Args:
            task: number of the task, from 0.

        Raises:
            ValueError: if there is no such task.
        """
        if isinstance(task, Tensor) and task.dim():
            raise ValueError(
                f"task is a tensor {tuple(task.shape)}; give one number: all samples of a call share a task"
            )
        if not 0 <= task < self.num_tasks:
            raise ValueError(
                f"task is {task}, and there are {self.num_tasks} tasks, numbered from 0; for more, give a larger "
                "num_tasks or call add_task()"
            )
        return self.task_embeddings[task]

    def weights(self, task: int) -> dict[str, Tensor]:
        """Return the weights of the network for a task, by name.

        Args:
            task: number of the task, from 0.
        """
        return self.unflatten(self.generate(self.embedding(task)[None])[0])

    def forward(self, x: Tensor, task: int) -> Any:
        """Return the output of the network with the weights of a task.

        Args:
            x: inputs of the network, (B, *).
            task: number of the task, from 0.
        """
        return self.call(self.weights(task), x)


class ChunkedHyperNetwork(TaskHyperNetwork):
    r"""Hypernetwork that generates each chunk of weights independently, from the embeddings of task and chunk.

    .. math:: r_i = W \phi(\dots \phi(W_1 [e_t; c_i] + b_1) \dots) + b

    The baseline of :class:`RNNHyperNetwork`: no chunk depends on another one. :math:`\phi` is a ReLU.

    Source: arXiv 1906.00695, section 3.1. Differs from it: a chunk never spans two layers, and chunks are scaled as
    :class:`TaskHyperNetwork` describes.

    Args:
        network: network whose trainable weights are generated; its first axis is the batch.
        num_tasks: number T of tasks, at least 1.
        task_size: size of the embedding of a task, at least 1.
        layer_size: size of the embedding of a chunk, at least 1.
        hidden_sizes: widths of the hidden layers, each at least 1; empty for a linear map.
        chunk_size: number S of weights in a chunk, at least 1.

    Shape:
        x (B, \*), task an integer -> the output of the network, (B, \*)

    Raises:
        ValueError: if a size is below 1, or no parameter of the network requires a gradient; in ``forward`` if there is
            no such task.

    Example:
        >>> ChunkedHyperNetwork(nn.Linear(3, 4), num_tasks=2)(torch.ones(5, 3), task=0).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        network: nn.Module,
        num_tasks: int,
        task_size: int = 32,
        layer_size: int = 32,
        hidden_sizes: Sequence[int] = (64, 64),
        chunk_size: int = 2000,
    ) -> None:
        super().__init__(network, num_tasks, task_size, layer_size, chunk_size)
        if any(size < 1 for size in hidden_sizes):
            raise ValueError(f"hidden_sizes is {list(hidden_sizes)}; each must be at least 1")
        widths = [task_size + layer_size, *hidden_sizes]
        layers = [(nn.Linear(before, after), nn.ReLU()) for before, after in itertools.pairwise(widths)]
        self.hidden = nn.Sequential(*itertools.chain.from_iterable(layers))
        self.output = nn.Linear(widths[-1], chunk_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Redraw embeddings and layers."""
        self.reset_embeddings()
        for layer in [*self.hidden, self.output]:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        self.standardize(self.output)

    def chunks(self, embeddings: Tensor) -> Tensor:
        """Return the chunks of some tasks, (T, L, S).

        Args:
            embeddings: embeddings of the tasks, (T, task_size).
        """
        return self.output(self.hidden(pairs_of(embeddings, self.chunk_embeddings)))


def pairs_of(tasks: Tensor, chunks: Tensor) -> Tensor:
    """Return the embedding of each task beside that of each chunk, (T, L, task_size + layer_size).

    Args:
        tasks: embeddings of tasks, (T, task_size).
        chunks: embeddings of chunks, (L, layer_size).

    Example:
        >>> pairs_of(torch.ones(2, 1), torch.zeros(3, 2)).shape
        torch.Size([2, 3, 3])
    """
    return torch.cat([tasks[:, None].expand(-1, len(chunks), -1), chunks.expand(len(tasks), -1, -1)], -1)
