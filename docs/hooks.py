"""Hooks of mkdocs: what is done to a page once it is HTML."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', flags=re.DOTALL)
# A parameter as transformers documents it, "`int`, *optional*, defaults to 64", in the tables of the reference.
PARAMETER = re.compile(
    r"<code>`(?P<type>[^`]+)`, \*optional\*(?:, defaults to `?(?P<default>[^<`]+)`?)?</code>(?P<cells>.*?)"
    r"<em>required</em>",
    flags=re.DOTALL,
)


def on_page_content(content: str, **kwargs: Any) -> str:
    """Returns the page with formulas as MathML, which needs no script, and with defaults where they belong."""
    return PARAMETER.sub(_default_in_its_column, FORMULA.sub(_to_mathml, content))


def _to_mathml(match: re.Match[str]) -> str:
    is_block = match["tag"] == "div"
    return convert(html.unescape(match["latex"]), display="block" if is_block else "inline")


def _default_in_its_column(match: re.Match[str]) -> str:
    return f"<code>{match['type']}</code>{match['cells']}<code>{match['default'] or None}</code>"
