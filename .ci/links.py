"""Check a built site: every link inside it leads somewhere, and nothing is fetched.

    python .ci/links.py docs/_build/html

Files and anchors of links are looked up. Links to other sites are not followed; a
script, a style or a picture from another site is an error.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded = {"", "top"}, set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        loaded = {attrs.get("src"), *self._source_set(attrs.get("srcset"))}
        if tag == "link":
            loaded.add(attrs.get("href"))
        self.loaded |= loaded - {None, ""}
        self.links |= (loaded | {attrs.get("href")}) - {None, ""}

    def _source_set(self, text):
        return {source.split()[0] for source in (text or "").split(",") if source}


def problems(root):
    """Yield (page, link, what is wrong with it)."""
    root = root.resolve()
    paths = [p for p in root.rglob("*.html") if "_static" not in p.parts]
    pages = {path: Page(path.read_text("utf-8")) for path in paths}
    for path, page in sorted(pages.items()):
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.netloc and link in page.loaded:
                yield path.relative_to(root), link, "is fetched from another site"
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].anchors if target in pages else {parts.fragment}
            if not target.exists() or unquote(parts.fragment) not in known:
                yield path.relative_to(root), link, "is not there"


def main(root):
    """Print what is wrong."""
    found = list(problems(Path(root)))
    for page, link, what in found:
        print(f"{page}: {link} {what}")
    if not list(Path(root).glob("*.html")):
        sys.exit(f"no pages in {root}")
    print(f"{len(found)} problems in {root}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
