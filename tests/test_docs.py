"""Links in the Markdown pages lead somewhere: files exist, headings exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])

_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)


def links(text: str) -> list[str]:
    return _LINK.findall(_CODE.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors a page's headings get: lower case, punctuation dropped, spaces to hyphens."""
    found = []
    for heading in _HEADING.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
        found.append(re.sub(r"\s", "-", words))
    return set(found)


def broken_links(page: Path, root: Path) -> list[str]:
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(root):
            broken.append(link)
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_the_page_resolve(page):
    assert broken_links(page, ROOT) == []


def test_a_missing_file_and_a_missing_heading_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# The first: a page\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[ok](other.md) [ok](#here) [ok](other.md#the-first-a-page) `[no](code.md)`\n"
        "[web](https://example.org) [gone](gone.md) ![gone](gone.png) [gone](other.md#gone)\n"
    )
    assert broken_links(page, tmp_path) == ["gone.md", "gone.png", "other.md#gone"]
