"""Where a stop may fall: what belongs together is finished first.

Signals reach the main thread between any two steps of the interpreter. A command's handler gives what shall be raised
to `ask`, which raises it at once, or at the end of the outermost `held` block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_depth = 0
_asked: BaseException | None = None


def ask(stop: BaseException) -> None:
    """Raise `stop` here and now, or as soon as nothing holds it back."""
    global _asked  # noqa: PLW0603 -- a process has one main thread, and its signals have no other place
    if not _depth:
        raise stop
    _asked = stop


@contextmanager
def held() -> Iterator[None]:
    """A stop that is asked for meanwhile is raised at the end, whether the block succeeds or fails. Main thread only."""
    global _depth, _asked  # noqa: PLW0603
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and _asked is not None:
            stop, _asked = _asked, None
            raise stop
