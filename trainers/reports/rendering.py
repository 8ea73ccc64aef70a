"""Turns words, tables and whole reports into Markdown and HTML; what comes from data can neither be markup nor script."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#!~&$]|^[-+=])")
_MOST_CHARACTERS = 600


def escaped(text: str) -> str:
    """Returns a text as one line of Markdown that shows exactly it, shortened if it is long (CommonMark 0.31, 2.4: backslash escapes)."""
    line = " ".join(text.split())
    line = line if len(line) <= _MOST_CHARACTERS else f"{line[: _MOST_CHARACTERS - 1]}…"
    return _MARKUP.sub(r"\\\1", line)


def code(text: str) -> str:
    """Returns a text as a code span, whatever backticks it holds (CommonMark 0.31, 6.1)."""
    line = " ".join(text.split())
    longest = max((len(ticks) for ticks in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{line}{padding}{fence}" if line else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table; cells are Markdown, pipes and line ends in them are taken care of."""
    lines = [header, ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render_page(title: str, markdown: str, folder: Path) -> str:
    """Returns a report as one HTML page that needs no other file and no network: pictures inside, no script, no outside link.

    Args:
        folder: what the Markdown's links are relative to; pictures elsewhere are left out.
    """
    import jinja2
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = re.sub(r'<img src="([^"]*)"', lambda match: f'<img src="{_inlined(folder, match[1])}"', body)
    body = re.sub(r'<a href="[^"]*">(.*?)</a>', r"<code>\1</code>", body)  # the files may be elsewhere when the page is read
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    template = Path(__file__).with_name("report_page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(title=title, body=Markup(body))


def _cell(text: str) -> str:
    """Returns a cell without line ends, its pipes escaped, inside code spans too (GitHub Flavored Markdown, 4.10)."""
    return " ".join(text.split()).replace("|", "\\|")


def _inlined(folder: Path, link: str) -> str:
    path = (folder / link).resolve()
    if path.suffix != ".png" or not path.is_relative_to(folder.resolve()) or not path.is_file():
        return ""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
