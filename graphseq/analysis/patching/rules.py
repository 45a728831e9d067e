"""Rules of relevance propagation: changed backward passes of layers whose forward passes stay the same."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from graphseq.nn import SELU, CRReLU, GatedFeedForward, SparseGatedFeedForward

__all__ = ["relevance_rules"]

RelevanceRule = Literal["ln", "identity", "half", "ah"]
DEFAULT_RULES: tuple[RelevanceRule, ...] = ("ln", "identity", "half")
Forward = Callable[..., Tensor]

_active: set[int] = set()  # ids of modules under rules

# activations with value 0 at 0, of which the ratio to the input is bounded; ReLU's ratio is its gradient already
_ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, nn.CELU, nn.SELU, nn.Mish, nn.Hardswish, nn.Softsign, SELU, CRReLU,
)  # fmt: skip
_TORCH_ENCODERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


@contextmanager
def relevance_rules(
    model: nn.Module,
    rules: Sequence[RelevanceRule] = DEFAULT_RULES,
    extra: Mapping[type[nn.Module], Literal["identity", "half"]] | None = None,
) -> Iterator[dict[str, list[str]]]:
    r"""Let the backward pass of a network propagate relevance; the forward pass stays equal bit for bit.

    ======== =================================================== ================================================
    rule     where                                               gradient
    ======== =================================================== ================================================
    ln       LayerNorm, RMSNorm; PyG's LayerNorm, GraphNorm      as if the divisor were constant
    identity smooth activations of one entry                     :math:`\sigma(z) / \tilde z` in place of the slope
    half     product of the gate in ``GatedFeedForward``, GLU    half of it to each factor
    ah       softmax attention, also GAT and ``TransformerConv`` to values alone, none to queries and keys
    ======== =================================================== ================================================

    with :math:`\tilde z = z \pm 10^{-6}`, away from 0. Linear layers, embeddings, batch norms in evaluation mode, ReLU
    and sums over edges stay as they are: their gradient is the rule. Rules hold for what runs inside the context,
    whenever the network was built, and no weight changes; derivatives may also be taken after the context. Softmax
    attention is recognised by its function, ``scaled_dot_product_attention``, in any module. Products, norms and
    activations that a module writes as plain functions keep their gradient: see ``extra``.

    Source: arXiv 2508.21258. Differs from it: rules are found by the class of a module, in any network; ``ah`` is off
    by default, as in the released code.

    Args:
        model: network whose modules follow the rules.
        rules: names of the rules.
        extra: rule for each of further classes of modules: ``identity`` for an elementwise activation that is 0 at 0,
            ``half`` for a module that returns a product of two functions of its inputs.

    Yields:
        names of the modules that follow each rule.

    Raises:
        ValueError: if there is no such rule, or ``rules`` is not a list.
        RuntimeError: if a module is under rules already.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU())
        >>> x = torch.randn(2, 3, requires_grad=True)
        >>> with relevance_rules(network) as applied:
        ...     y = network(x)
        >>> applied, torch.equal(y, network(x))
        ({'ln': ['1'], 'identity': ['2'], 'half': []}, True)
    """
    known = get_args(RelevanceRule)
    if isinstance(rules, str):
        raise ValueError(f"rules is {rules!r}; give a list of names, such as [{rules!r}]")
    for rule in rules:
        if rule not in known:
            raise ValueError(f"rules has {rule!r}; the rules are {', '.join(known)}")
    for other in (extra or {}).values():
        if other not in ("identity", "half"):
            raise ValueError(f"extra has the rule {other!r}; give identity or half")
    modules = dict(model.named_modules())
    under = {id(module) for module in modules.values()}
    if under & _active:
        raise RuntimeError(f"{type(model).__name__} is under relevance rules already; leave their context first")
    applied: dict[str, list[str]] = {rule: [] for rule in rules}
    with ExitStack() as stack:
        _active.update(under)
        stack.callback(_active.difference_update, under)
        for name, module in modules.items():
            for followed, names in applied.items():
                if _apply(stack, followed, module, extra or {}):
                    names.append(name)
        if "ah" in rules:
            stack.enter_context(_ConstantPatterns())
        yield applied


def _apply(
    stack: ExitStack, rule: str, module: nn.Module, extra: Mapping[type[nn.Module], Literal["identity", "half"]]
) -> bool:
    """Let a module follow a rule until the stack is left; return whether it can."""
    wanted = extra.get(type(module))
    if rule == "ln" and (linear := _norm_of(module)) is not None:
        _exchange(stack, module, "forward", _with_gradient_of(module.forward, linear))
    elif rule == "identity" and (wanted == "identity" or _is(module, _ACTIVATIONS)):
        _exchange(stack, module, "forward", _with_gradient_of(module.forward, _ratio(module.forward)))
    elif rule == "identity" and isinstance(module, _TORCH_ENCODERS) and _is_smooth(module.activation):
        function = module.activation  # a function: as a module it follows the rule by itself
        _exchange(stack, module, "activation", _with_gradient_of(function, _ratio(function)))
    elif rule == "half" and (wanted == "half" or _is(module, (nn.GLU,))):
        stack.callback(module.register_forward_hook(lambda _, inputs, y: halved(y)).remove)
    elif rule == "half" and _is(module, (GatedFeedForward, SparseGatedFeedForward)):
        product = module.get_submodule("output").register_forward_pre_hook(lambda _, inputs: halved(inputs[0]))
        stack.callback(product.remove)
    elif rule == "ah":
        return isinstance(module, nn.MultiheadAttention) or _constant_graph_attention(stack, module)
    else:
        return False
    return True


def _is(module: nn.Module, kinds: Sequence[type[nn.Module]]) -> bool:
    """Whether a module is of one of the classes, and computes what that class does."""
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)


def _is_smooth(activation: Any) -> bool:
    return not isinstance(activation, nn.Module) and activation not in (functional.relu, torch.relu)


def _exchange(stack: ExitStack, module: nn.Module, name: str, function: Forward) -> None:
    """Shadow an attribute of a module until the stack is left."""
    held = vars(module)
    before = held.get(name)
    held[name] = function
    if before is None:
        stack.callback(held.pop, name)
    else:
        stack.callback(held.__setitem__, name, before)


class _GradientOf(torch.autograd.Function):
    """A value whose gradient goes to another tensor of the same shape."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, path: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


def _with_gradient_of(function: Forward, path: Forward) -> Forward:
    """Return a function with the values of one, bit for bit, and the gradient of another."""

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return function(x, *args, **kwargs)
        with torch.no_grad():
            value = function(_copied(x), *args, **kwargs)  # a copy, for functions that write in place
        return _GradientOf.apply(value, path(x, *args, **kwargs))

    return forward


def _copied(x: Tensor) -> Tensor:
    """Return a copy of the same strides, by which kernels round: SiLU of half of a row is not that of a copy."""
    if 0 in x.stride():  # entries that share memory
        return x.detach().clone()
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).copy_(x.detach())


def halved(y: Tensor) -> Tensor:
    """Return the same values with half the gradient.

    Args:
        y: tensor of any shape.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> torch.autograd.grad(halved(x).sum(), x)[0].tolist()
        [0.5, 0.5]
    """
    return _GradientOf.apply(y.detach(), y / 2)


def _ratio(function: Forward) -> Forward:
    def path(z: Tensor) -> Tensor:
        with torch.no_grad():
            stable = z + torch.where(z < 0, -1e-6, 1e-6).to(z.dtype)
            ratio = function(z.detach().clone()) / stable
        return z * ratio

    return path


def _norm_of(module: nn.Module) -> Forward | None:
    """Return the norm with a constant divisor, None for a module that is no such norm."""
    if _is(module, (nn.LayerNorm, nn.RMSNorm)):
        return _constant_scale(module, isinstance(module, nn.LayerNorm))
    if type(module).__module__.startswith("torch_geometric."):
        from graphseq.analysis.patching.graphs import graph_norm

        return graph_norm(module)
    return None


def _constant_scale(norm: Any, centred: bool) -> Forward:
    def path(x: Tensor) -> Tensor:
        dims = tuple(range(-len(norm.normalized_shape), 0))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        centre = wide - wide.mean(dims, keepdim=True) if centred else wide
        eps = torch.finfo(x.dtype).eps if norm.eps is None else norm.eps
        square = centre.detach().square().mean(dims, keepdim=True)
        y = (centre * torch.rsqrt(square + eps)).to(x.dtype)
        weight, bias = norm.weight, getattr(norm, "bias", None)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    return path


def _constant_graph_attention(stack: ExitStack, module: nn.Module) -> bool:
    """Cut the gradient to the weights of a graph attention layer; return whether the module is one."""
    if not type(module).__module__.startswith("torch_geometric."):
        return False
    from graphseq.analysis.patching.graphs import constant_attention

    handle = constant_attention(module)
    if handle is not None:
        stack.callback(handle.remove)
    return handle is not None


class _ConstantPatterns(TorchFunctionMode):
    """No gradient to queries and keys of softmax attention: detached, they give the same weights."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (functional.scaled_dot_product_attention, functional.multi_head_attention_forward):
            args = (*(x.detach() for x in args[:2]), *args[2:])
            kwargs = {name: x.detach() if name in ("query", "key") else x for name, x in kwargs.items()}
        return func(*args, **kwargs)
