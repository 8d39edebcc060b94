"""The pages below docs/: each is in the menu, and links inside of the repository lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), ROOT / "demo" / "README.md"]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def pages_of(menu: list[Any]) -> Iterator[str]:
    for entry in menu:
        ((_, below),) = entry.items()
        if isinstance(below, str):
            yield below
        else:
            yield from pages_of(below)


def prose_of(page: Path) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_every_page_is_in_the_menu_once():
    named = list(pages_of(SITE["nav"]))
    assert sorted(named) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_site_is_strict_and_loads_nothing_from_elsewhere():
    assert SITE["strict"] is True
    assert {"warn"} == {value for rules in SITE["validation"].values() for value in rules.values()}
    assert SITE["theme"]["font"] is False
    assert not [file for file in (*SITE.get("extra_css", []), *SITE.get("extra_javascript", [])) if "//" in file]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_inside_of_the_repository_lead_somewhere(page):
    for link in LINK.findall(prose_of(page)):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), f"{link} of {page.name}"
        assert not anchor or anchor in anchors_of(target), f"{link} of {page.name}"
        if DOCS in page.parents:
            assert DOCS in target.resolve().parents, f"{link} of {page.name} leads out of the site"


def test_every_section_that_a_page_takes_from_the_readme_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    taken = [
        name for page in PAGES for name in re.findall(r'^--8<-- "README.md:(\w+)"', page.read_text(), re.MULTILINE)
    ]
    assert taken
    for name in taken:
        (section,) = re.findall(rf"\[start:{name}\] -->(.*?)<!-- --8<-- \[end:{name}\]", readme, flags=re.DOTALL)
        assert "|---" in section
        assert not [link for link in LINK.findall(section) if "//" not in link], "a link has another base on a page"


@pytest.mark.parametrize("picture", sorted(DOCS.glob("*.png")), ids=lambda picture: picture.name)
def test_every_picture_is_shown_on_a_page(picture):
    assert any(picture.name in page.read_text(encoding="utf-8") for page in PAGES)
