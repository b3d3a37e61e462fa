"""Our signs where a terminal or a file cannot show them: words that say the same, and `?` for what has none."""

from __future__ import annotations

import codecs

PLAIN = {"✓": "[x]", "✗": "[ ]", "→": "->", "…": "...", "█": "#", "━": "-", "╸": "-", "╺": "-", "–": "-"}
HANDLER = "mautic-sync-plain"


def plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: what cannot be encoded is told in letters that can."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error(HANDLER, plain)
