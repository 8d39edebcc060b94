"""A report's Markdown as one page of HTML that needs no other file, with sortable tables, dark where the screen is."""

import base64
import hashlib
import html
import re
from pathlib import Path
from typing import Any

import markdown
from markdown.extensions.toc import TocExtension

STYLE = """\
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --faint: #555555; --line: #bbbbbb;
  --shade: #f3f3f3; --link: #14417b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #16181b; --faint: #aaaaaa; --line: #555555;
  --shade: #25282d; --link: #8ab8f5; } }
body { font: 17px/1.55 Georgia, "Times New Roman", serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 3rem auto; padding: 0 1.5rem; }
h1 { font-size: 2rem; line-height: 1.2; margin-bottom: .3rem; }
h2 { margin-top: 3rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { margin-top: 2.2rem; }
nav { font-size: .95rem; columns: 2; border: 1px solid var(--line); padding: .6rem 1.2rem; }
nav ul { margin: 0; padding-left: 1.1rem; }
a { color: var(--link); text-decoration: none; }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: 1.2rem auto; font-size: .9rem; font-variant-numeric: tabular-nums;
  border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
th { border-bottom: 1px solid var(--ink); font-weight: 600; cursor: pointer; }
th[aria-sort="descending"]::after { content: " \\25BE"; }
th[aria-sort="ascending"]::after { content: " \\25B4"; }
th, td { padding: .3rem .8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
tbody tr:hover { background: var(--shade); }
figure { margin: 2rem 0; text-align: center; }
figure img { max-width: 100%; background: #ffffff; border-radius: .3rem; }
figcaption { font-size: .9rem; color: var(--faint); margin-top: .4rem; }
pre, code { font: .85rem/1.4 ui-monospace, Menlo, Consolas, monospace; }
pre { background: var(--shade); padding: .8rem; overflow: auto; max-height: 16rem; }
@media print { body { max-width: none; margin: 0; } nav { display: none; } }"""
# A click on a column's head sorts by it: by the first number of its cells, largest first, or else by their text.
SCRIPT = """\
for (const head of document.querySelectorAll("thead th")) {
  head.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") !== "descending";
    const cell = row => row.cells[head.cellIndex].textContent.trim();
    const number = row => cell(row) === "" ? -Infinity : parseFloat(cell(row));
    const rows = [...body.rows];
    const numeric = rows.every(row => !Number.isNaN(number(row)));
    rows.sort((a, b) => numeric ? (number(a) < number(b)) - (number(a) > number(b)) : cell(b).localeCompare(cell(a)));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...(down ? rows : rows.reverse()));
  });
}"""
# No other script runs, whatever a run is called, and nothing is fetched.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{}'".format(
    base64.b64encode(hashlib.sha256(f"\n{SCRIPT}\n".encode()).digest()).decode()
)


def to_html(text: str, folder: Path) -> str:
    """Render the Markdown of a report as one page, pictures inside.

    Runs may be of others: HTML and links in what they are called stay text, and pictures are those of the folder.
    """
    extensions: Any = ["tables", "sane_lists", TocExtension(toc_depth="2-3")]
    converter = markdown.Markdown(extensions=extensions)
    converter.preprocessors.deregister("html_block")
    for name in ("html", "link", "reference", "short_reference", "autolink", "automail"):
        converter.inlinePatterns.deregister(name)
    title, _, body = text.partition("\n")
    body = converter.convert(body)
    contents = converter.toc  # pyright: ignore[reportAttributeAccessIssue] - set by the extension
    numbers = iter(range(1, body.count("<img") + 1))

    def embed(match: re.Match) -> str:
        path = (folder / match["path"]).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            return ""
        picture = base64.b64encode(path.read_bytes()).decode()
        caption = f"<figcaption><b>Figure {next(numbers)}.</b> {match['caption']}</figcaption>"
        return f'<figure><img alt="{match["caption"]}" src="data:image/png;base64,{picture}">{caption}</figure>'

    body = re.sub(r'<p><img alt="(?P<caption>[^"]*)" src="(?P<path>[^"]*)" ?/?></p>', embed, body)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    body = re.sub(r'<img (?![^>]*src="data:)[^>]*>', "", body)
    heading = html.escape(title.removeprefix("# "))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<title>{heading}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{STYLE}\n</style>\n</head>\n'
        f"<body>\n<h1>{heading}</h1>\n<nav>{contents}</nav>\n{body}\n<script>\n{SCRIPT}\n</script>\n</body>\n</html>\n"
    )
