"""Networks that are called with given weights, and the base of networks whose weights are generated."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from graphseq.core import Recorded

__all__ = ["GeneratedNetwork", "call_with_weights"]


def call_with_weights(network: nn.Module, weights: Mapping[str, Tensor], *inputs: Tensor) -> Any:
    r"""Return the output of a network with given weights in the place of its own.

    .. math:: y_b = f(x_b; \theta) \quad \text{or} \quad y_b = f(x_b; \theta_b)

    Running statistics of batch norms are those of the network. In training mode they are updated as usual if all
    samples share the same weights. With separate weights for each sample a batch norm in training mode is an error:
    each sample would be normalised by itself.

    Args:
        network: any network whose batch is its first axis.
        weights: tensors by their names in ``network``; parameters and buffers that are not named stay. Either every
            tensor has the shape that it has in the network, (\*shape), or every tensor has a leading batch axis with
            one value for each sample, (B, \*shape).
        inputs: inputs (B, \*).

    Returns:
        The output of the network, (B, \*).

    Raises:
        ValueError: if a name does not exist, a shape or B does not fit, or the network has a batch norm in training
            mode and weights differ between samples.

    Example:
        >>> network, x = nn.Linear(3, 2, bias=False), torch.ones(4, 3)
        >>> call_with_weights(network, {"weight": torch.zeros(2, 3)}, x).shape
        torch.Size([4, 2])
        >>> call_with_weights(network, {"weight": torch.arange(4.0).view(4, 1, 1).expand(4, 2, 3)}, x)[:, 0]
        tensor([0., 3., 6., 9.])
    """
    count = _check_weights(network, weights, inputs)
    if count is None:
        return functional_call(network, dict(weights), inputs)
    for layer in network.modules():
        if isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None):
            raise ValueError(
                f"weights are given for each of {count} samples, and {type(layer).__name__} would normalise each "
                "sample by itself; give the same weights to the whole batch, or use a layer norm"
            )

    def single(own: dict[str, Tensor], *each: Tensor) -> Any:
        return functional_call(network, own, tuple(x.unsqueeze(0) for x in each))

    # dropout differs from sample to sample, as it does in an ordinary batch
    batched = vmap(single, randomness="different")(dict(weights), *inputs)
    return batched.squeeze(1) if isinstance(batched, Tensor) else batched


def _check_weights(network: nn.Module, weights: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> int | None:
    """Return the number of samples with weights of their own; None if all share them."""
    known = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    counts: set[int | None] = set()
    for name, value in weights.items():
        if name not in known:
            raise ValueError(f"{type(network).__name__} has no weight {name!r}; it has {', '.join(known)}")
        shape = known[name].shape
        if value.shape == shape:
            counts.add(None)
        elif value.shape[1:] == shape:
            counts.add(len(value))
        else:
            raise ValueError(
                f"weights[{name!r}] is {tuple(value.shape)}; {tuple(shape)} is needed, or {('B', *shape)} with weights "
                "for each sample"
            )
    if len(counts) > 1:
        raise ValueError(
            f"weights are given for {', '.join(sorted('all samples' if n is None else f'{n} samples' for n in counts))}"
            "; give all of them for the same samples"
        )
    count = next(iter(counts), None)
    if count is not None and any(len(x) != count for x in inputs):
        raise ValueError(
            f"weights are given for {count} samples and inputs for {[len(x) for x in inputs]}; give equally many"
        )
    return count


class GeneratedNetwork(Recorded, nn.Module):
    r"""Base class of hypernetworks: holds a network whose weights a subclass generates.

    The trainable parameters of the network become buffers: their names, shapes and initial values are kept, and
    :meth:`call` runs the network with given values in their place. Buffers and parameters that do not require a
    gradient are left as they are. A parameter that is shared by several layers is generated once.

    A subclass generates all weights as one vector and splits it by :meth:`unflatten`.

    Args:
        network: network whose weights are generated; the module itself is changed.

    Raises:
        ValueError: if no parameter of the network requires a gradient, or one is complex.
        TypeError: if ``network`` is not a module.

    Example:
        >>> generated = GeneratedNetwork(nn.Linear(3, 2))
        >>> generated.num_weights, len(list(generated.parameters()))
        (8, 0)
        >>> generated.call(generated.unflatten(torch.ones(8)), torch.ones(1, 3))
        tensor([[4., 4.]])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"network is a {type(network).__name__}; give a torch.nn.Module")
        self.network = network
        places: dict[int, list[str]] = {}
        found: dict[int, nn.Parameter] = {}
        for name, parameter in network.named_parameters(remove_duplicate=False):
            if parameter.requires_grad:
                found[id(parameter)] = parameter
                places.setdefault(id(parameter), []).append(name)
        if not found:
            raise ValueError(
                f"no parameter of {type(network).__name__} requires a gradient, so there are no weights to generate"
            )
        for key, names in places.items():
            if found[key].is_complex():
                raise ValueError(f"weight {names[0]!r} is {found[key].dtype}; only real weights can be generated")
        self._places = list(places.values())
        self.shapes = {names[0]: found[key].shape for key, names in places.items()}
        self._sizes = [shape.numel() for shape in self.shapes.values()]
        for key, names in places.items():
            for name in names:
                _turn_into_buffer(network, name, found[key].detach())

    @property
    def num_weights(self) -> int:
        """Number P of weights that are generated."""
        return sum(self._sizes)

    def initial_weights(self) -> Tensor:
        """Return the weights that the network had when it was given, as one vector (P,)."""
        return torch.cat([self.network.get_buffer(names[0]).flatten() for names in self._places])

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Return weights by name, each (*, *shape).

        Args:
            flat: all weights in one vector, (*, P).
        """
        parts = flat.split(self._sizes, -1)
        return {
            name: part.reshape(*flat.shape[:-1], *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def call(self, weights: Mapping[str, Tensor], *inputs: Tensor) -> Any:
        """Return the output of the network with given weights, see :func:`call_with_weights`.

        Args:
            weights: weights by name, as :meth:`unflatten` returns them.
            inputs: inputs of the network.
        """
        given = {name: weights[names[0]] for names in self._places for name in names}
        return call_with_weights(self.network, given, *inputs)

    def extra_repr(self) -> str:
        """Return the number of weights."""
        return f"num_weights={self.num_weights}"


def _turn_into_buffer(network: nn.Module, name: str, value: Tensor) -> None:
    path, _, own = name.rpartition(".")
    layer = network.get_submodule(path)
    delattr(layer, own)
    layer.register_buffer(own, value, persistent=False)
