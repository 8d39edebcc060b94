"""The one place where text of others (names of folders, labels, recordings) enters Markdown, and with it HTML."""

import html
import re


def plain(text: object) -> str:
    """Writes text so that it stays text in Markdown and in the HTML that is made of it: no element, link or cell."""
    line = " ".join(str(text).split())
    return html.escape(re.sub(r"([\\`\[\]|])", r"\\\1", line), quote=False)
