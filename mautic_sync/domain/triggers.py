"""What sets actions off: the difference between what somebody was and what was decided now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mautic_sync.domain.conditions import Condition
from mautic_sync.domain.contact import Kind, Signals
from mautic_sync.domain.countries import fold

Became = Literal["hot", "cold", "low_value"]


@dataclass(frozen=True)
class Trigger:
    """What sets one action off: entering a kind or a stage, becoming something, or a condition that comes true.

    `name` is the action's own, else what sets it off in words: `enter customer`, `become hot`.
    """

    name: str
    kind: Kind | None = None
    stage: str | None = None
    become: Became | None = None
    condition: Condition | None = None

    @classmethod
    def of(
        cls,
        name: str | None,
        *,
        kind: Kind | None = None,
        stage: str | None = None,
        become: Became | None = None,
        condition: Condition | None = None,
    ) -> Trigger:
        """The trigger, named by what it is where the action has no name."""
        told = f"become {become}" if become is not None else f"enter {kind or stage}"
        return cls(name or told, kind, stage, become, condition)


class State(NamedTuple):
    """What somebody is, as far as actions ask: `holds` names the triggers whose condition is true."""

    kind: Kind | None = None
    stage: str | None = None
    hot: bool = False
    low_value: bool = False
    holds: frozenset[str] = frozenset()


NOBODY = State()


def holding(triggers: Iterable[Trigger], signals: Signals, now: int) -> frozenset[str]:
    """The triggers whose condition is true of these signals, which hold the scores and the decided kind."""
    return frozenset(one.name for one in triggers if one.condition is not None and one.condition.holds(signals, now))


def triggered(triggers: Iterable[Trigger], before: State, after: State) -> tuple[Trigger, ...]:
    """The triggers that the step from `before` to `after` sets off, in their order."""
    return tuple(one for one in triggers if _sets_off(one, before, after))


def _sets_off(one: Trigger, before: State, after: State) -> bool:
    if one.condition is not None:
        return one.name in after.holds and one.name not in before.holds
    if one.become is not None:
        became = {
            "hot": after.hot and not before.hot,
            "cold": before.hot and not after.hot,
            "low_value": after.low_value and not before.low_value,
        }
        return became[one.become]
    if one.kind is not None:
        return after.kind == one.kind != before.kind
    if one.stage is None or after.stage is None or fold(after.stage) != fold(one.stage):
        return False
    return before.stage is None or fold(before.stage) != fold(one.stage)
