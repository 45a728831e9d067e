"""The protocol of an effect as it stands in the record: the author's text, and what the declaration itself says."""

from typing import TYPE_CHECKING

from graphseq.bench.records.table import format_value

if TYPE_CHECKING:
    from graphseq.bench.effects.effect import Effect

__all__ = ["protocol_text"]


def protocol_text(effect: "Effect") -> str:
    """Return the protocol of an effect: its own text, then what the declaration says.

    Scales, seeds, conditions and rule are read from the declaration, so that the text cannot differ from the run.

    Args:
        effect: any effect.

    Example:
        >>> from graphseq.bench import Above, Rule, all_of, any_of
        >>> from graphseq.bench.effects.effect import Effect
        >>> coin = Effect(name="effect.coin", source="none", protocol="Heads against tails.",
        ...     arms={"tails": {"x": 0}, "heads": {"x": 1}}, run=lambda cell, scale, effect: {}, score="up",
        ...     claims=[Above("A", "heads - tails")], verdict=Rule(all_of("A"), any_of("A")))
        >>> print(protocol_text(coin))
        Heads against tails.
        <BLANKLINE>
        Seeds: 5 of each arm, from 0 on.
        <BLANKLINE>
        Conditions, by 95 % intervals of differences paired by seed:
        <BLANKLINE>
        - (A) heads - tails lies above 0
        <BLANKLINE>
        Rule: *reproduced* if (A) holds, *partly* if (A) holds, else *not reproduced*.
    """
    parts = [effect.protocol.strip()]
    for scale, overrides in effect.scales.items():
        changes = ", ".join(f"``{key}`` {format_value(value)}" for key, value in overrides.items())
        parts.append(f"Scale {scale}: {changes}.")
    parts.append(f"Seeds: {effect.seeds.words}.")
    if effect.claims:
        parts.append("Conditions, by 95 % intervals of differences paired by seed:")
        parts.append("\n".join(f"- ({claim.letter}) {claim.words}" for claim in effect.claims))
    if effect.verdict is not None:
        others = {claim.letter for claim in effect.claims} - effect.verdict.letters
        aside = " Conditions that it does not name are reported." if others else ""
        parts.append(f"Rule: {effect.verdict.words}.{aside}")
    return "\n\n".join(parts)
