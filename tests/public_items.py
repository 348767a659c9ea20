"""Compare docs/API.md with the public items in rustdoc's output, or write it.

Usage: public_items.py FOLDER [--write], where FOLDER is `target/doc` after `cargo doc --workspace --no-deps`.
"""

import difflib
import sys
from html.parser import HTMLParser
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "API.md"
CRATES = ("mcsup-core", "mcsup-py", "mcsup-cli")
KINDS = {
    "Structs": "struct",
    "Enums": "enum",
    "Unions": "union",
    "Traits": "trait",
    "Macros": "macro",
    "Functions": "function",
    "Type Aliases": "type alias",
    "Constants": "constant",
    "Statics": "static",
}
INTRODUCTION = """\
# Public items

The public items of the three crates, as rustdoc lists them. `make api` writes this page; `make test-docs`
fails where it is out of date. An item of this list is an interface: its name and its meaning change with an
entry in the [CHANGELOG](../CHANGELOG.md). The page has no methods and fields; rustdoc does. With the feature
`laws`, `mcsup_py::laws` is public too: the fuzz targets call it.
"""


class AllItems(HTMLParser):
    """Collects (path, kind) from rustdoc's page of all items."""

    def __init__(self):
        super().__init__()
        self.items = []
        self.kind = None
        self.tag = None

    def handle_starttag(self, tag, attributes):
        self.tag = tag if tag == "h3" or (tag == "a" and self.kind and "href" in dict(attributes)) else None

    def handle_endtag(self, tag):
        self.tag = None

    def handle_data(self, text):
        if self.tag == "h3":
            self.kind = KINDS.get(text)
        elif self.tag == "a":
            self.items.append((text, self.kind))


def items(folder, crate):
    """The sorted public items of a crate."""
    parser = AllItems()
    parser.feed((folder / crate.replace("-", "_") / "all.html").read_text(encoding="utf-8"))
    assert parser.items, f"rustdoc lists no item of {crate}: has its page another form now?"
    return sorted(parser.items)


def section(crate, found):
    """The section of a crate: a heading with the number of items, and one line for each."""
    width = max(len(path) for path, _ in found)
    lines = "\n".join(f"{path:<{width}}  {kind}" for path, kind in found)
    return f"\n## {crate}: {len(found)}\n\n```\n{lines}\n```\n"


def main(folder, write=False):
    """Write the page, or print how it differs; return the exit code."""
    text = INTRODUCTION + "".join(section(crate, items(folder, crate)) for crate in CRATES)
    if write:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    difference = difflib.unified_diff(old.splitlines(), text.splitlines(), "docs/API.md", "rustdoc", "", "", 0, "")
    lines = list(difference)
    if lines:
        print("docs/API.md is out of date: run `make api`", *lines, sep="\n", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--write" in sys.argv[2:]))
