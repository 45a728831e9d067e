"""Results of oracle searches over many inputs: shorter paths, corrected predictions, skipped and repeated layers."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from graphseq.analysis.depth.search import PathSearchResult

__all__ = ["OracleSearchReport", "oracle_search_report"]


@dataclass(frozen=True)
class OracleSearchReport:
    """Results of searches with :func:`graphseq.analysis.oracle_reward`, one for each input.

    The path of an input is the shortest one with a correct prediction. All paths are found with known targets, so that
    ``oracle_accuracy`` is the share of inputs for which a path exists, not an accuracy that a network reaches.

    Args:
        num_inputs: number of inputs.
        accuracy: share of inputs that the unchanged network predicts correctly.
        oracle_accuracy: share of inputs for which some path that was run predicts correctly.
        shorter: share of the correctly predicted inputs with a shorter correct path (C to C).
        repaired: share of the wrongly predicted inputs with a correct path (W to C).
        mean_length: mean number of layers run on the paths of initially correct inputs, and on those of repaired
            inputs.
        mean_unique: mean number of different layers on the same two sets of paths.
        skip_rate: share of the paths without a layer, for each layer.
        repeat_rate: share of the paths with a layer more than once, for each layer.
        usage_entropy: entropy in nats of the layers over all places of the paths; ln N if they are used evenly.
        pareto: oracle accuracy with the paths of at most a length, for each length that raises it.

    Example:
        >>> from graphseq.analysis import LayerPath
        >>> right, wrong = ({LayerPath([0, 1]): value, LayerPath([1]): 1.0} for value in (1.0, 0.0))
        >>> report = oracle_search_report([PathSearchResult(2, rewards) for rewards in (right, wrong)])
        >>> report.accuracy, report.oracle_accuracy, report.shorter, report.repaired, report.skip_rate
        (0.5, 1.0, 1.0, 1.0, (1.0, 0.0))
        >>> print(report.table())
        share of inputs with a right path, found by an oracle search:
        1.000 with at most 1 layers run
        0.500 by the network as it is, without a search
    """

    num_inputs: int
    accuracy: float
    oracle_accuracy: float
    shorter: float
    repaired: float
    mean_length: tuple[float, float]
    mean_unique: tuple[float, float]
    skip_rate: tuple[float, ...]
    repeat_rate: tuple[float, ...]
    usage_entropy: float
    pareto: tuple[tuple[int, float], ...]

    def table(self) -> str:
        """Return the Pareto table of length and oracle accuracy as text."""
        lines = ["share of inputs with a right path, found by an oracle search:"]
        lines += [f"{share:.3f} with at most {length} layers run" for length, share in self.pareto]
        return "\n".join([*lines, f"{self.accuracy:.3f} by the network as it is, without a search"])


def oracle_search_report(results: Sequence[PathSearchResult]) -> OracleSearchReport:
    """Return the results of oracle searches, one search for each input.

    Args:
        results: results of searches with rewards of :func:`graphseq.analysis.oracle_reward` for one input each, 0 or 1.

    Raises:
        ValueError: if there is no result, a reward is neither 0 nor 1, or networks have different depths.

    Example:
        >>> from graphseq.analysis import LayerPath
        >>> rewards = {LayerPath([0, 1]): 0.0, LayerPath([0, 1, 1]): 1.0}
        >>> oracle_search_report([PathSearchResult(2, rewards)]).repeat_rate
        (0.0, 1.0)
    """
    depths = {result.num_layers for result in results}
    if len(depths) != 1:
        raise ValueError(f"results have the depths {sorted(depths)}; give results of one network")
    (depth,) = depths
    odd = {reward for result in results for reward in result.rewards.values()} - {0.0, 1.0}
    if odd:
        raise ValueError(
            f"rewards are {sorted(odd)[0]}; an oracle's reward of one input is 0 or 1. Give results of searches "
            "with oracle_reward, each for a single input"
        )
    before = [result.original == 1.0 for result in results]
    found = [result.best if result.rewards[result.best] == 1.0 else None for result in results]
    right = [path for path, was in zip(found, before, strict=True) if was and path is not None]
    turned = [path for path, was in zip(found, before, strict=True) if not was and path is not None]
    paths = [*right, *turned]
    places = Counter(number for path in paths for number in path)
    total = sum(places.values())
    lengths = sorted(path.length for path in paths)
    return OracleSearchReport(
        num_inputs=len(results),
        accuracy=sum(before) / len(results),
        oracle_accuracy=len(paths) / len(results),
        shorter=_mean([path.length < depth for path in right]),
        repaired=len(turned) / (len(results) - sum(before)) if not all(before) else math.nan,
        mean_length=(_mean([path.length for path in right]), _mean([path.length for path in turned])),
        mean_unique=(_mean([path.unique for path in right]), _mean([path.unique for path in turned])),
        skip_rate=tuple(_mean([number not in path for path in paths]) for number in range(depth)),
        repeat_rate=tuple(_mean([path.count(number) > 1 for path in paths]) for number in range(depth)),
        usage_entropy=sum(-count / total * math.log(count / total) for count in places.values()),
        pareto=tuple((length, sum(one <= length for one in lengths) / len(results)) for length in sorted(set(lengths))),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
