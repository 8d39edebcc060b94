"""Tables in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from .plain_text import plain


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table with a column for each name in `head`; cells are text, never Markdown of their own."""
    head_line, *lines = ["| " + " | ".join(map(plain, line)) + " |" for line in (head, *rows)]
    return "\n".join([head_line, "|---" * len(head) + "|", *lines])
