"""Effect of each activation of a trained network on a metric: activation, attribution and relevance patching."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphseq.analysis.patching.rules import DEFAULT_RULES, RelevanceRule, relevance_rules
from graphseq.analysis.patching.scores import PatchingScores
from graphseq.analysis.patching.sites import PatchingSite

__all__ = ["LogitDifference", "PatchingExperiment"]

Inputs = Tensor | tuple[Any, ...]
Place = tuple[str, int]


@dataclass(frozen=True)
class LogitDifference:
    """Metric of prompts with a correct and a wrong answer: the mean difference of their logits at one step.

    Args:
        correct: correct answer of each prompt, int64 (B,).
        wrong: wrong answer of each prompt, int64 (B,).
        step: step whose logits are compared, for outputs (B, T, V).

    Raises:
        ValueError: if answers are not int64 (B,), or their numbers differ; in a call if the logits do not fit them.

    Example:
        >>> LogitDifference(torch.tensor([1]), torch.tensor([0]))(torch.tensor([[[5.0, 5.0], [1.0, 4.0]]]))
        tensor(3.)
    """

    correct: Tensor
    wrong: Tensor
    step: int = -1

    def __post_init__(self) -> None:
        """Check the answers."""
        for name, answers in (("correct", self.correct), ("wrong", self.wrong)):
            if not isinstance(answers, Tensor) or answers.dim() != 1 or answers.dtype != torch.int64:
                told = f"{answers.dtype} {tuple(answers.shape)}" if isinstance(answers, Tensor) else f"{answers!r}"
                raise ValueError(f"{name} is {told}; give a tensor int64 (B,), one answer for each prompt")
        if self.correct.shape != self.wrong.shape:
            raise ValueError(
                f"there are {len(self.correct)} correct answers and {len(self.wrong)} wrong ones; give one of each for "
                "every prompt"
            )

    def __call__(self, output: Tensor) -> Tensor:
        """Return the metric of logits (B, T, V) or (B, V)."""
        if not isinstance(output, Tensor) or output.dim() not in (2, 3) or len(output) != len(self.correct):
            given = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(
                f"the network returned {given}; logits (B, T, V) or (B, V) with B = {len(self.correct)}, the number of "
                "answers, are needed"
            )
        if output.dim() == 3 and not -output.shape[1] <= self.step < output.shape[1]:
            raise ValueError(f"step is {self.step}; the network returned logits of {output.shape[1]} steps")
        logits = output[:, self.step] if output.dim() == 3 else output
        both = logits.gather(1, torch.stack([self.correct, self.wrong], 1).to(logits.device))
        return (both[:, 0] - both[:, 1]).mean()


class PatchingExperiment:
    r"""Effects on a metric of replacing activations of corrupted prompts by those of clean prompts.

    .. math::
        \mathrm{ActP}(a) &= L(x' \mid a \leftarrow a(x)) - L(x') \\
        \mathrm{AtP}(a) &= (a(x) - a(x')) \cdot \nabla_a L\,|_{x'} \\
        \mathrm{RelP}(a) &= (a(x) - a(x')) \cdot \rho_a L\,|_{x'}

    where a is the activation of one layer at one position, for all prompts at once, and :math:`\rho` is the gradient
    under the rules of :func:`relevance_rules`. Activation patching runs the network once for each layer and position;
    the other two estimate all effects by two forward passes and one backward pass. The network runs in evaluation mode,
    without dropout, and is restored afterwards; gradients of parameters are not changed.

    Source: arXiv 2508.21258. Differs from it: none.

    Args:
        model: trained network.
        sites: activations to patch, such as :func:`block_sites`.
        metric: function from the output of the network to a scalar tensor, such as :class:`LogitDifference`.

    Raises:
        ValueError: if there are no sites, two have one name, or one names no layer; in the methods if clean and
            corrupted inputs do not correspond, a layer does not run exactly once, or the metric is not a scalar.
        TypeError: if ``sites`` is not a list of sites; in the methods if an activation or an input is of another type.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
        >>> experiment = PatchingExperiment(network, [PatchingSite("hidden", "0")], lambda y: y.mean())
        >>> clean, corrupted = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
        >>> exact = experiment.activation_patching(clean, corrupted)
        >>> round(exact.pearson(experiment.attribution_patching(clean, corrupted))["hidden"], 3)
        1.0
    """

    def __init__(self, model: nn.Module, sites: Sequence[PatchingSite], metric: Callable[[Any], Tensor]) -> None:
        if isinstance(sites, PatchingSite) or not all(isinstance(site, PatchingSite) for site in sites):
            raise TypeError(f"sites is {sites!r}; give a list of PatchingSite, such as block_sites()")
        repeated = [name for name, number in Counter(site.name for site in sites).items() if number > 1]
        if not sites or repeated:
            raise ValueError(f"sites are {[site.name for site in sites]}; give at least one, with different names")
        self.model, self.metric = model, metric
        self.sites = {site.name: site for site in sites}
        self.layers = {site.name: site.found(model) for site in sites}

    def activation_patching(self, clean: Inputs, corrupted: Inputs) -> PatchingScores:
        """Return the effects by running the network with each activation replaced.

        Args:
            clean: input of the network, or tuple of its positional arguments, with the clean prompts, whose activations
                are inserted.
            corrupted: the same with the corrupted prompts, whose activations are replaced. Only the first argument and
                features may differ; lengths or edges have to be equal.
        """
        with _evaluated(self.model), torch.no_grad():
            source, target = _corresponding(clean, corrupted)
            wanted = self._activations(source, _copied)
            base = self._metric(self._run(target, {}))
            effects: dict[Place, Tensor] = {}
            for place, activation in wanted.items():
                site = self.sites[place[0]]
                single = []
                for position in range(activation.shape[site.axis]):

                    def patch(value: Tensor, site: PatchingSite = site, position: int = position,
                              other: Tensor = activation) -> Tensor:  # fmt: skip
                        return site.patched(_checked(value, other, site), other, position)

                    single.append(self._metric(self._run(target, {place: patch})) - base)
                effects[place] = torch.stack(single)
        return self._scores(effects)

    def attribution_patching(self, clean: Inputs, corrupted: Inputs) -> PatchingScores:
        """Return the effects as the gradient estimates them.

        Args:
            clean: input of the network, or tuple of its positional arguments, with the clean prompts, whose activations
                are inserted.
            corrupted: the same with the corrupted prompts, see :meth:`activation_patching`.
        """
        return self._attributed(clean, corrupted, nullcontext())

    def relevance_patching(
        self,
        clean: Inputs,
        corrupted: Inputs,
        rules: Sequence[RelevanceRule] = DEFAULT_RULES,
        extra: Mapping[type[nn.Module], Literal["identity", "half"]] | None = None,
    ) -> PatchingScores:
        """Return the effects as relevance propagation estimates them.

        Args:
            clean: input of the network, or tuple of its positional arguments, with the clean prompts, whose activations
                are inserted.
            corrupted: the same with the corrupted prompts, see :meth:`activation_patching`.
            rules: names of the rules, see :func:`relevance_rules`.
            extra: rule of further classes of modules, see :func:`relevance_rules`.
        """
        return self._attributed(clean, corrupted, relevance_rules(self.model, rules, extra))

    def _attributed(self, clean: Inputs, corrupted: Inputs, rules: AbstractContextManager[Any]) -> PatchingScores:
        with _evaluated(self.model):
            source, target = _corresponding(clean, corrupted)
            with torch.no_grad():
                wanted = self._activations(source, _copied)
            with rules, torch.enable_grad():
                seen: dict[Place, Tensor] = {}
                metric = self._metric(self._run(target, self._recorders(seen, _differentiable)))
                if not metric.requires_grad:
                    raise ValueError(
                        "metric has no gradient: it must be computed from the output by functions of torch, without "
                        "detach, item or argmax, and outside torch.inference_mode"
                    )
                gradients = torch.autograd.grad(metric, list(seen.values()), allow_unused=True)
        effects = {}
        for (place, here), gradient in zip(seen.items(), gradients, strict=True):
            site, there = self.sites[place[0]], wanted[place]
            rate = torch.zeros_like(here) if gradient is None else gradient
            effects[place] = site.per_position((there - _checked(here.detach(), there, site)) * rate)
        return self._scores(effects)

    def _activations(self, inputs: tuple[Any, ...], held: Callable[[Tensor], Tensor]) -> dict[Place, Tensor]:
        seen: dict[Place, Tensor] = {}
        self._run(inputs, self._recorders(seen, held))
        return seen

    def _recorders(
        self, seen: dict[Place, Tensor], held: Callable[[Tensor], Tensor]
    ) -> dict[Place, Callable[[Tensor], Tensor]]:
        """Return functions for all activations that note them; the network goes on with a copy, safe from writes."""

        def recorder(place: Place) -> Callable[[Tensor], Tensor]:
            def record(value: Tensor) -> Tensor:
                seen[place] = held(value)
                return seen[place].clone()

            return record

        return {(name, number): recorder((name, number))
                for name, layers in self.layers.items() for number in range(len(layers))}  # fmt: skip

    def _run(self, inputs: tuple[Any, ...], functions: Mapping[Place, Callable[[Tensor], Tensor]]) -> Any:
        """Return the output of the network while functions exchange some activations."""
        ran: Counter[Place] = Counter()

        def counted(place: Place, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def call(value: Tensor) -> Tensor:
                ran[place] += 1
                return function(value)

            return call

        with ExitStack() as stack:
            for place, function in functions.items():
                layer = self.layers[place[0]][place[1]][1]
                stack.callback(self.sites[place[0]].hook(layer, counted(place, function)).remove)
            output = self.model(*inputs)
        for place in functions:
            if ran[place] != 1:
                raise ValueError(
                    f"layer {self.layers[place[0]][place[1]][0]!r} of the site {place[0]!r} ran {ran[place]} times; "
                    "activations can be patched only in layers that run once"
                )
        return output

    def _metric(self, output: Any) -> Tensor:
        value = self.metric(output)
        if not isinstance(value, Tensor) or value.dim():
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"metric returned {shape}; it must return a scalar tensor, such as a mean")
        return value

    def _scores(self, effects: Mapping[Place, Tensor]) -> PatchingScores:
        values = {}
        for name, layers in self.layers.items():
            rows = [effects[name, number].detach().cpu() for number in range(len(layers))]
            if len({len(row) for row in rows}) > 1:
                raise ValueError(
                    f"layers of the site {name!r} have {', '.join(str(len(row)) for row in rows)} positions; give "
                    "those with other numbers of positions a site of their own"
                )
            values[name] = torch.stack(rows)
        return PatchingScores(values, {name: [layer for layer, _ in layers] for name, layers in self.layers.items()})


def _copied(value: Tensor) -> Tensor:
    return value.detach().clone()


def _differentiable(value: Tensor) -> Tensor:
    """Return an activation as part of the graph, or as its beginning where all weights are frozen."""
    return value if value.requires_grad else value.detach().requires_grad_()


def _checked(value: Tensor, other: Tensor, site: PatchingSite) -> Tensor:
    if value.shape != other.shape:
        raise ValueError(
            f"activations at {site.layers!r} are {tuple(other.shape)} for the clean prompts and {tuple(value.shape)} "
            "for the corrupted ones; positions must correspond"
        )
    return value


def _corresponding(clean: Inputs, corrupted: Inputs) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return both inputs as positional arguments, with positions that correspond."""
    for name, inputs in (("clean", clean), ("corrupted", corrupted)):
        if not isinstance(inputs, Tensor | tuple) or (isinstance(inputs, tuple) and not inputs):
            raise TypeError(
                f"{name} is a {type(inputs).__name__}; give the input of the network, or a tuple of its positional "
                "arguments"
            )
    source, target = (inputs if isinstance(inputs, tuple) else (inputs,) for inputs in (clean, corrupted))
    if len(source) != len(target):
        raise ValueError(f"clean has {len(source)} arguments and corrupted {len(target)}; give the same ones")
    for place, (one, two) in enumerate(zip(source, target, strict=True)):
        if not (isinstance(one, Tensor) and isinstance(two, Tensor)):
            continue
        if not place and not one.numel():
            raise ValueError(f"argument 0 is {tuple(one.shape)} in clean; give at least one prompt with one position")
        if one.shape != two.shape:
            raise ValueError(
                f"argument {place} is {tuple(one.shape)} in clean and {tuple(two.shape)} in corrupted; prompts must "
                "have equal lengths, position by position: rewrite one with as many tokens, or pad both alike"
            )
        if place and not one.is_floating_point() and not torch.equal(one, two):
            raise ValueError(
                f"argument {place} differs between clean and corrupted; only the first argument and features may, "
                "while lengths, edges and masks must be equal, so that positions correspond"
            )
    return source, target


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and its modules back into theirs; torch's fused path would skip layers."""
    modes = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in modes.items():
            module.training = mode
