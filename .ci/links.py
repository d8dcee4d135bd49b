"""Check that every link inside a built site leads somewhere.

    python .ci/links.py docs/_build/html

Files and anchors of relative links, of pictures and of scripts; nothing is fetched.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors and the links of a page."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links = {"", "top"}, set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        self.links |= {attrs[name] for name in ("href", "src") if attrs.get(name)}
        for source in (attrs.get("srcset") or "").split(","):
            self.links |= set(source.split()[:1])


def broken_links(root):
    """Yield (page, link) for links to files or anchors that are not there."""
    root = root.resolve()
    pages = {path: Page(path.read_text("utf-8")) for path in root.rglob("*.html")}
    for path, page in sorted(pages.items()):
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue  # mail, data, and other sites
            target = path
            if parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].anchors if target in pages else {parts.fragment}
            if not target.exists() or unquote(parts.fragment) not in known:
                yield path.relative_to(root), link


def main(root):
    """Print what is broken."""
    broken = list(broken_links(Path(root)))
    for page, link in broken:
        print(f"{page}: {link}")
    n_pages = len(list(Path(root).rglob("*.html")))
    print(f"{n_pages} pages, {len(broken)} broken links inside the site")
    sys.exit(bool(broken) or not n_pages)


if __name__ == "__main__":
    main(*sys.argv[1:])
