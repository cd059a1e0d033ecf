"""The HTML of a report: one file, no scripts, nothing fetched."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff;
  max-width: 68rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; border-bottom: 2px solid #0072B2; padding-bottom: .2rem; }
h3 { font-size: 1.02rem; margin: 1.4rem 0 .4rem; }
nav { margin: .8rem 0; } nav a { margin-right: 1rem; }
a { color: #005a8e; }
.warning { border-left: 4px solid #D55E00; background: #fdf3ec; padding: .5rem .9rem; margin: 1rem 0; }
figure { margin: 1.2rem 0 1.8rem; overflow-x: auto; }
figcaption, .note { font-size: .88rem; color: #333; }
figcaption { margin-bottom: .5rem; } .plot figcaption { margin: .4rem 0 0; }
.note { margin: .35rem 0 0; }
img { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-size: .88rem; border-top: 2px solid #1a1a1a; border-bottom: 2px solid #1a1a1a; }
thead tr:last-child { border-bottom: 1px solid #1a1a1a; }
th, td { padding: .25rem .7rem; text-align: left; white-space: nowrap; font-weight: normal; vertical-align: top; }
thead th { font-weight: 600; } th.group { text-align: center; border-bottom: 1px solid #999; }
.table td { text-align: right; font-variant-numeric: tabular-nums; }
.table thead th { text-align: right; }
.table thead th.group { text-align: center; } .table thead th.lead { text-align: left; }
.facts td { white-space: normal; overflow-wrap: anywhere; } .ci { color: #555; font-size: .92em; }
details { margin: .7rem 0; } summary { cursor: pointer; }
pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; font-size: .82rem; line-height: 1.35; }
code { font-size: .88em; overflow-wrap: anywhere; }
@media print { body { max-width: none; padding: 0; } figure, table { break-inside: avoid; } nav { display: none; } }
"""


def page(title: str, sections: Sequence[tuple[str, str, str]], lead: str) -> str:
    """A whole document.

    Args:
        title: plain text.
        sections: (anchor, heading, inner HTML).
        lead: HTML below the title.
    """
    links = " ".join(f'<a href="#{anchor}">{html.escape(heading)}</a>' for anchor, heading, _ in sections)
    body = "\n".join(
        f'<section id="{anchor}">\n<h2>{html.escape(heading)}</h2>\n{inner}\n</section>'
        for anchor, heading, inner in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{lead}\n<nav>{links}</nav>\n{body}\n</body>\n</html>\n"
    )


def picture(png: bytes, name: str, caption: str) -> str:
    """A figure with its image inside."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure class="plot" id="figure-{html.escape(name)}"><img alt="{html.escape(caption)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


@dataclass(frozen=True)
class Link:
    """A web address in a table; of any other kind of address only the text is shown."""

    address: str

    def __str__(self) -> str:
        text = html.escape(self.address)
        return f'<a href="{text}">{text}</a>' if self.address.startswith(("https://", "http://")) else text


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """A two-column table of names and values: plain text, or a `Link`."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f"<td>{value if isinstance(value, Link) else html.escape(str(value))}</td></tr>"
        for name, value in pairs
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def grid(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain table of words."""
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(word))}</td>" for word in row) + "</tr>" for row in rows)
    return f'<figure><table class="grid"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></figure>'


def details(summary: str, inner: str) -> str:
    """Something to unfold."""
    return f"<details><summary>{html.escape(summary)}</summary>\n{inner}\n</details>"


def bullets(items: Iterable[str]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def heading(text: str) -> str:
    """A heading below that of a section."""
    return f"<h3>{html.escape(text)}</h3>"


def code(text: str) -> str:
    """Lines to copy as they are."""
    return f"<pre>{html.escape(text)}</pre>"
