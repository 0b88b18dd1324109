"""A report's content as Markdown and as one self-contained HTML page."""

import html
import re
from typing import NamedTuple

from rethink_jax.report.figures import Picture
from rethink_jax.report.tables import Table


class Heading(NamedTuple):
    """A heading; level 1 is the page's title."""

    text: str
    level: int = 2


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Bullets(NamedTuple):
    """A list of sentences."""

    items: list[str]


Block = Heading | Text | Bullets | Table | Picture

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem;
  color: #1a1a1a; background: #fff; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ccc; text-align: right;
  white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
th:first-child, td:first-child { position: sticky; left: 0; background: inherit; text-align: left;
  white-space: normal; min-width: 7.5rem; max-width: 9.5rem; }
tr { background: #fff; }
figure { margin: 1rem 0; } figcaption { font-size: 0.875rem; }
svg { display: block; width: 100%; max-width: 36rem; height: auto; background: #fff; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #161616; } tr { background: #161616; } th, td { border-color: #444; }
}
"""


def to_markdown(blocks: list[Block]) -> str:
    """Returns the page as Markdown; figures are the PNG files beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return "#" * level + " " + text
        case Text(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Table(columns, rows):
            alignment = ["---", *["---:"] * (len(columns) - 1)]
            lines = (
                " | ".join(cell.replace("|", "\\|") for cell in cells)
                for cells in (columns, alignment, *rows)
            )
            return "\n".join(f"| {line} |" for line in lines)
        case Picture(name, caption):
            return f"![{caption}]({name}.png)\n\n*{caption}*"


def to_html(title: str, blocks: list[Block]) -> str:
    """Returns the page as HTML that loads nothing: figures are SVG inside it."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"
        case Table(columns, rows):
            head = _html_row("th", columns)
            body = "\n".join(_html_row("td", cells) for cells in rows)
            return (
                f'<div class="scroll" tabindex="0"><table>\n<thead>{head}</thead>\n'
                f"<tbody>\n{body}\n</tbody>\n</table></div>"
            )
        case Picture(_, caption, svg):
            return (
                f"<figure>{_inline(svg, caption)}"
                f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            )


def _html_row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _inline(svg: str, caption: str) -> str:
    """Returns an SVG file as an element of a page: no prolog, no namespaces, no size of its own."""
    start, rest = svg[svg.index("<svg") :].split(">", 1)
    start = re.sub(r' (?:xmlns(?::\w+)?|width|height)="[^"]*"', "", start)
    label = html.escape(caption, quote=True)
    return f'{start} role="img" aria-label="{label}">{rest.strip()}'
