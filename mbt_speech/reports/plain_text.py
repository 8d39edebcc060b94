"""The one place where text of others (names of folders, labels, recordings) enters Markdown, and with it HTML."""

import html
import re


def plain(text: object) -> str:
    """Writes text so that it stays text in Markdown and in the HTML that is made of it: no element, link or cell."""
    line = " ".join(str(text).split())
    marks = r"[\\`\[\]|*]|(?<!\w)_+|_+(?!\w)"  # inside of a word, "_" means nothing
    return html.escape(re.sub(marks, lambda found: "".join(f"\\{mark}" for mark in found[0]), line), quote=False)
