"""Whether a built site loads anything from elsewhere.

``python -m tests.docs.offline SITE`` prints what is loaded and then exits with 1. Links that a reader may follow
are no loads: what counts are scripts, styles, images, frames and fonts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

LOADS = dict.fromkeys(("script", "img", "iframe", "source", "video", "audio", "embed"), "src")
LOADS |= {"object": "data", "link": "href"}
"""The attribute by which an element names what a browser loads."""
LEADS = frozenset({"canonical", "search", "next", "prev", "author", "license", "index", "help", "home"})
"""Relations of a ``link`` element that load nothing."""
REMOTE = re.compile(r"^(?:https?:)?//")
IN_STYLES = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")\s]+)")


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.remote: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        address = values.get(LOADS.get(tag, "")) or ""
        if REMOTE.match(address) and not (tag == "link" and values.get("rel") in LEADS):
            self.remote.append(f"{tag} {address}")


def remote_loads(site: Path) -> Iterator[str]:
    """Each remote address that a page or a style sheet below ``site`` loads, with the file that does."""
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            page = _Loads()
            page.feed(path.read_text(encoding="utf-8"))
            yield from (f"{path.relative_to(site)}: {load}" for load in page.remote)
        if path.suffix in (".html", ".css"):
            for address in IN_STYLES.findall(path.read_text(encoding="utf-8")):
                yield f"{path.relative_to(site)}: style {address}"


def main() -> int:
    """Print every remote load; 1 when there is one, 2 when there is no site."""
    site = Path(sys.argv[1])
    if not (site / "index.html").is_file():
        print(f"{site} is no built site", file=sys.stderr)
        return 2
    loads = list(remote_loads(site))
    print("\n".join(loads), end="\n" if loads else "")
    return 1 if loads else 0


if __name__ == "__main__":
    sys.exit(main())
