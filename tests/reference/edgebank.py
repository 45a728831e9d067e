"""EdgeBank from the whole list of past events, with dictionaries."""

import itertools


def memory(src, dst, t, mode, window="share", share=0.15):
    """Pairs remembered after all given events."""
    times = {}
    for number, (u, v, when) in enumerate(zip(src, dst, t, strict=True)):
        times.setdefault((u, v), []).append((number, when))
    if not times or mode == "unlimited":
        return set(times)
    if mode == "threshold":
        mean = sum(len(met) for met in times.values()) / len(times)
        return {pair for pair, met in times.items() if len(met) >= mean}
    if window == "share":
        begin = (1 - share) * (len(src) - 1)
        return {pair for pair, met in times.items() if met[-1][0] >= begin}
    total = 0.0
    for met in times.values():
        gaps = [later[1] - earlier[1] for earlier, later in itertools.pairwise(met)]
        total += sum(gaps) / len(gaps) if gaps else 0.0
    return {pair for pair, met in times.items() if met[-1][1] >= max(t) - total / len(times)}
