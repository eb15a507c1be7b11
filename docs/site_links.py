"""MkDocs hook: every link, picture and anchor of the built site leads somewhere, those of tables and docstrings too.

MkDocs itself checks what stands in the pages' Markdown; this checks what a reader gets.
"""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mkdocs.exceptions import PluginError

NOT_OURS = ("http", "https", "mailto", "data", "javascript")


def on_post_build(config: Any) -> None:
    """Stop the build where the site has links that lead nowhere (called by MkDocs).

    Raises:
        PluginError: names them.
    """
    if broken := broken_links(Path(config["site_dir"])):
        raise PluginError("links of the site that lead nowhere:\n" + "\n".join(broken))


def broken_links(site: Path) -> list[str]:
    """Return the links between the pages of a folder that lead nowhere, as "page: link"."""
    pages = {file.resolve(): _Page.of(file) for file in sorted(site.rglob("*.html")) if file.name != "404.html"}
    return [
        f"{file.relative_to(site.resolve())}: {link}"
        for file, page in pages.items()
        for link in page.links
        if not _leads_somewhere(link, file, pages)
    ]


class _Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, None] = {}
        self.anchors: set[str] = set()

    @classmethod
    def of(cls, file: Path) -> "_Page":
        page = cls()
        page.feed(file.read_text(encoding="utf-8"))
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value and tag != "base":
                self.links[value] = None
            elif value and (name == "id" or (name == "name" and tag == "a")):
                self.anchors.add(value)


def _leads_somewhere(link: str, file: Path, pages: dict[Path, _Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme in NOT_OURS or parts.netloc:
        return True
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if target.is_dir():
        target /= "index.html"
    anchor = unquote(parts.fragment)
    return target.is_file() and (not anchor or target not in pages or anchor in pages[target].anchors)
