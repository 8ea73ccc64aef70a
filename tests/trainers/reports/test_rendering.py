"""What comes from data is shown, and never marks up."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from trainers.reports.rendering import code, escaped, render_page, table

NASTY = [
    "<script>alert(1)</script>",
    "a | b",
    "`ticks` and ``more``",
    "![pixel](http://example.org/p.png)",
    "[here](javascript:alert(1))",
    "**bold** _em_ ~~gone~~",
    "# no heading",
    "- no list",
    "&lt;b&gt; &amp;",
    "back\\slash \\| pipe",
    "http://example.org",
    "$x$ {{ 7 * 7 }} {% raw %}",
]


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("as_markdown", [escaped, code])
def test_a_cell_shows_exactly_its_text(text: str, as_markdown: object) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(table(("head",), [(as_markdown(text),)]))  # type: ignore[operator]
    (cell,) = [token for token in tokens if token.type == "inline" and token.content != "head"]
    assert {child.type for child in cell.children or []} <= {"text", "text_special", "code_inline"}
    assert "".join(child.content for child in cell.children or []) == text


def test_long_and_many_line_texts_become_one_short_line() -> None:
    assert escaped("one\n\n two\tthree") == "one two three"
    assert len(escaped("x" * 5000)) == 600


def test_a_page_keeps_templates_and_markup_of_data_as_text(tmp_path: Path) -> None:
    page = render_page("<title>", "\n\n".join(escaped(text) for text in NASTY), tmp_path)
    assert "{{ 7 * 7 }}" in page
    assert "<title>&lt;title&gt;</title>" in page
    for markup in ("<script", "<a ", "<img", "<em>", "<li>"):
        assert markup not in page


@pytest.mark.parametrize("link", ["../secret.png", "/etc/passwd", "file:///etc/passwd", "absent.png", "notes.txt"])
def test_only_pictures_of_the_run_get_into_the_page(tmp_path: Path, link: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_bytes(b"secret")
    page = render_page("t", f"![x]({link})", tmp_path / "run")
    assert "base64" not in page
