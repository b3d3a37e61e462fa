"""What goes wrong on purpose: decided per request by a seeded random generator, counted in the stats."""

import difflib
import random
import threading
from dataclasses import dataclass, fields, replace
from typing import Any

_RATES = ("before", "after", "late", "echo", "truncate", "rate", "moving", "merge", "busy", "broken")
_SLOWEST = 600


@dataclass(frozen=True)
class Faults:
    """Chances per request, and the server clock's error in seconds."""

    seed: int = 1
    #: the connection is dropped, or 502/503 answered, and nothing is applied
    before: float = 0.0
    #: applied, then the connection is dropped or 504 answered
    after: float = 0.0
    #: the connection is dropped at once, the request applied 0.3 to 3 s later
    late: float = 0.0
    #: a batch echoes a wrong id or an old value
    echo: float = 0.0
    #: the answer ends in the middle
    truncate: float = 0.0
    #: 429 with X-RateLimit-Reset
    rate: float = 0.0
    #: rows of a feed become visible out of id order
    moving: float = 0.0
    #: a visitor merges with a known contact
    merge: float = 0.0
    #: 503 with Retry-After
    busy: float = 0.0
    #: Mautic loses its database while it handles one contact: points are granted and answered by 400, what is there
    #: by 404, anything else by 500
    broken: float = 0.0
    #: so many seconds are added to each call of Mautic
    slow: float = 0.0
    #: the server's clock is off by so many seconds
    skew: float = 0.0


#: What a bare seed means: ten requests in a hundred meet a fault.
_DEFAULT = Faults(before=0.03, after=0.025, late=0.015, echo=0.01, truncate=0.01, rate=0.01)


class Dice:
    """Draws the fault of each request."""

    def __init__(self, faults: Faults) -> None:
        self._guard = threading.Lock()
        self.use(faults)

    def use(self, faults: Faults) -> None:
        with self._guard:
            self.faults = faults
            self._random = random.Random(f"faults {faults.seed}")

    def draw(self, allowed: frozenset[str]) -> str | None:
        """The fault of this request, or None; at most one."""
        with self._guard:
            drawn = self._random.random()
            for kind in _RATES:
                rate = getattr(self.faults, kind)
                if drawn < rate:
                    return kind if kind in allowed else None
                drawn -= rate
        return None

    def number(self) -> float:
        with self._guard:
            return self._random.random()


def parse_faults(text: str) -> Faults:
    """`7` is a seed with default rates; `seed=7,before=0.05,late=0.02,skew=30` names each one."""
    text = text.strip()
    if text.lstrip("-").isdigit():
        return replace(_DEFAULT, seed=int(text))
    names = [f.name for f in fields(Faults)]
    faults = Faults()
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.3)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"there is no fault {key!r}{hint} Known are {', '.join(names)}.")
        if not equals:
            raise ValueError(f"the fault {key!r} needs a value, as in {key}=0.05")
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"the fault {key!r} needs a number, not {value!r}") from None
        if key == "slow" and not 0 <= number <= _SLOWEST:
            raise ValueError(f"the fault 'slow' takes 0 to {_SLOWEST} seconds, not {value}")
        if key in _RATES and not 0 <= number <= 1:
            raise ValueError(f"the fault {key!r} is a chance between 0 and 1, not {value}")
        changed: dict[str, Any] = {key: int(number) if key == "seed" else number}
        faults = replace(faults, **changed)
    if sum(getattr(faults, k) for k in _RATES) > 1:
        raise ValueError("the chances of all faults together are more than 1")
    return faults
