"""Tables in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from .plain_text import plain


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table with a column for each name in `head`; what cells hold stays text."""
    lines = [f"| {' | '.join(map(plain, line))} |".replace("  ", " ") for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])
