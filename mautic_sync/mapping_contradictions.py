"""Rules that can never match, told beforehand. They are allowed: a rule may wait for others that are still to come."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mautic_sync.domain.contradictions import Contradiction, Known, Literal, Reach, contradictions
from mautic_sync.domain.countries import fold
from mautic_sync.domain.grammar import TOTAL, Leaf, Node, Path, in_typographic_quotes, leaves
from mautic_sync.domain.matchers import listed
from mautic_sync.domain.scoring import MOST_POINTS
from mautic_sync.mapping_files import ScoreRuleText, ScoringFile
from mautic_sync.mapping_problems import FileProblem, SourceFile

SCHEMES = ("http://", "https://")
_ANYTHING = re.compile(r"(?:\.?[*%])+")
"""Anything, also as regular expressions (`.*`) and SQL (`%`) write it."""


def never_matching(
    conditions: Mapping[tuple[str, Path], Node], sources: Mapping[str, SourceFile], known: Known
) -> Iterator[FileProblem]:
    """Parts of conditions that never hold, and patterns that no address matches. Whoever keeps a default is not asked."""
    for (file, path), node in conditions.items():
        source = sources[file]
        if source.packaged:
            continue
        for found in contradictions(node, known):
            yield source.problem(found.node.path, _why(found, known.reach, source))
        yield from (source.problem(place, told) for place, told in _partial_addresses(node))
        if path[-1] == "unless" and _finds_all(node, conditions.get((file, (*path[:-1], "on")))):
            yield source.problem(
                path, "this never counts: all that `on` finds is found by `unless` too, on its own day"
            )


def _finds_all(unless: Node, counted: Node | None) -> bool:
    wide, narrow = (one.matcher if isinstance(one, Leaf) else None for one in (unless, counted))
    return wide is not None and narrow is not None and wide.covers(narrow)


def reach_of(file: ScoringFile) -> dict[str, tuple[float, float]]:
    """Score → the least and the most that its rules can give, `total` included."""
    reach: dict[str, tuple[float, float]] = {}
    for group, rules in file.groups.items():
        points = [rule.points * _times(rule) for rule in rules]
        ends = sum(one for one in points if one < 0), sum(one for one in points if one > 0)
        reach[group] = _cut_off(*ends)
    least, most = zip(*reach.values(), strict=True) if reach else ((), ())
    return {**reach, TOTAL: _cut_off(sum(least), sum(most))}


def _cut_off(least: float, most: float) -> tuple[float, float]:
    return max(-MOST_POINTS, least), min(most, MOST_POINTS)


def _times(rule: ScoreRuleText) -> float:
    """How often a rule can count at most."""
    if rule.on is None or rule.once:
        return 1
    return rule.at_most if rule.at_most is not None and rule.per is None else math.inf


def _why(found: Contradiction, reach: Reach, source: SourceFile) -> str:
    one, other = found.one, found.other
    if one is not other:
        both = f"{_written(one, source)} and {_written(other, source)}"
        return f"this never holds: {both} exclude each other; did you mean `any`?"
    if one.leaf.subject == "score":
        name = one.leaf.names[0]
        ((operator, operand),) = one.leaf.operators.items()
        low, high = operand if operator == "between" else (operand, operand)
        if operator in {"is", "is_not", "between"} and math.ceil(low) > math.floor(high):
            return "this never holds: points are whole numbers"
        least, most = reach[name]
        return f"this never holds: with these rules the score `{name}` is {least:.0f} to {most:.0f}"
    return "this never holds: it ends before it begins"


def _written(literal: Literal, source: SourceFile) -> str:
    """A leaf as it stands in the file."""
    value: Any = source.document.value
    for step in literal.leaf.path:
        value = value[step]
    return f"{'' if literal.holds else 'not '}`{_flow(value)}`"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _partial_addresses(node: Node) -> Iterator[tuple[Path, str]]:
    """`where` about a part of an address, where the whole is compared. Some tracker may still send no more than that."""
    for leaf in leaves(node):
        where = {} if leaf.matcher is None else leaf.matcher.where
        for name in ("url", "referer"):
            for pattern in listed(where.get(name, [])):
                begin = fold(pattern).partition("*")[0]
                if in_typographic_quotes(pattern):
                    continue  # told of the quotes
                if begin.startswith("^") or (
                    "://" not in pattern and not any(one.startswith(begin) for one in SCHEMES)
                ):
                    meant = _ANYTHING.sub("*", f"*{pattern.strip('^$')}*")
                    told = f"whole addresses are compared, and none begins with `{begin}`; did you mean `{meant}`?"
                    yield (*leaf.path, "where", name), told
