"""One self-contained HTML page: text, tables and figures, everything inline, readable without a network.

Strings are escaped wherever they enter; `Html` marks what is markup already.
"""

import base64
import itertools
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


class Html(str):
    """Text that is markup."""

    __slots__ = ()


class Right(str):
    """Text that stands to the right in a table: a number with its unit."""

    __slots__ = ()


def _html(value: Any) -> Html:
    return value if isinstance(value, Html) else Html(escape(str(value)))


def element(tag: str, *children: Any, **attributes: str) -> Html:
    """An element; `class_` stands for class."""
    given = "".join(f' {name.rstrip("_")}="{escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{given}>{''.join(map(_html, children))}</{tag}>")


def paragraph(*children: Any) -> Html:
    return element("p", *children)


def percent(fraction: float) -> str:
    """One decimal, and a space that does not break."""
    return f"{100 * fraction:.1f}\N{NO-BREAK SPACE}%"


def code(text: str) -> Html:
    return element("code", text)


def table(heading: Sequence[Any], rows: Sequence[Sequence[Any]], caption: Any = "", has_total: bool = False) -> Html:
    """A table with its caption above; numbers and `Right` texts stand to the right, and so do the titles above them."""
    right = [_is_right(value) for value in (rows[0] if rows else heading)]
    lines = [_row("td", row, [_is_right(value) for value in row]) for row in rows]
    if has_total:
        lines[-1] = Html(lines[-1].replace("<tr>", '<tr class="total">', 1))
    head = element("thead", _row("th", heading, right))
    scrolled = element("div", element("table", head, element("tbody", *lines)), class_="wide")
    return element("figure", *([element("figcaption", caption)] if caption else []), scrolled, class_="table")


def _row(tag: str, cells: Sequence[Any], right: Sequence[bool]) -> Html:
    shown = (f"{cell:,}" if isinstance(cell, int | float) else cell for cell in cells)
    pairs = zip(shown, right, strict=True)
    return element(
        "tr", *(element(tag, cell, **({"class_": "number"} if to_right else {})) for cell, to_right in pairs)
    )


def _is_right(value: Any) -> bool:
    return isinstance(value, int | float | Right)


def picture(png: bytes, caption: Any, alt: str, width_px: int) -> Html:
    """A figure with its caption, the image inline and at most this wide."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    image = Html(f'<img src="{source}" alt="{escape(alt)}" style="max-width:{width_px}px">')
    return element("figure", image, element("figcaption", caption))


def tiles(values: Iterable[tuple[str, str]]) -> Html:
    """Large numbers with what they are."""
    return element(
        "dl", *(element("div", element("dt", name), element("dd", value)) for name, value in values), class_="tiles"
    )


def details(summary: str, text: str) -> Html:
    """Preformatted text that opens at a click."""
    return element("details", element("summary", summary), element("pre", text))


def section(title: str, *parts: Any) -> Html:
    return element("section", element("h2", title), *parts, id=_anchor(title))


def _anchor(title: str) -> str:
    return "-".join(word for word in "".join(c if c.isalnum() else " " for c in title.lower()).split())


def page(title: str, lead: Sequence[Any], sections: Mapping[str, Sequence[Any]]) -> str:
    """The whole page: a head with the lead, links to the sections, the sections, figures and tables numbered."""
    links = [element("a", name, href=f"#{_anchor(name)}") for name in sections]
    body = element(
        "main",
        element("header", element("h1", title), *lead),
        element("nav", *itertools.chain.from_iterable((link, " ") for link in links)),
        *(section(name, *parts) for name, parts in sections.items()),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head><body>{body}</body></html>\n"
    )


_CSS = """
:root { --ink: #1c2430; --soft: #5c6672; --line: #e3e7ec; --accent: #0072b2; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: #fff; color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.6 Inter, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 56px 32px 96px; counter-reset: figure table; }
header { border-bottom: 1px solid var(--line); padding-bottom: 28px; }
h1 { font-size: 34px; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 10px; font-weight: 650; }
h2 { font-size: 22px; line-height: 1.3; letter-spacing: -.01em; margin: 64px 0 8px; font-weight: 650; }
p, figcaption { text-wrap: pretty; }
p { max-width: 80ch; margin: 10px 0; }
.lead { font-size: 18px; color: var(--soft); }
.facts { font-size: 14px; color: var(--soft); max-width: none; overflow-wrap: anywhere; }
code { font: 0.88em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
nav { position: sticky; top: 0; background: #fffffff2; padding: 12px 0; font-size: 14px; z-index: 1;
  border-bottom: 1px solid var(--line); display: flex; flex-wrap: wrap; gap: 2px 20px; }
section { scroll-margin-top: 48px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 28px 0 20px; }
.tiles div { border: 1px solid var(--line); border-radius: 8px; padding: 14px 18px; }
.tiles dt { font-size: 13px; color: var(--soft); }
.tiles dd { margin: 2px 0 0; font-size: 28px; line-height: 1.25; font-weight: 600; font-variant-numeric: tabular-nums; }
figure { margin: 28px 0 36px; }
figure img { display: block; width: 100%; height: auto; }
figcaption { counter-increment: figure; margin: 10px 0; font-size: 14px; line-height: 1.5; color: var(--soft);
  max-width: 110ch; }
figcaption::before { content: "Figure " counter(figure) ". "; color: var(--ink); font-weight: 600; }
.table figcaption { counter-increment: table; }
.table figcaption::before { content: "Table " counter(table) ". "; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; line-height: 1.45; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1px solid #b9c1cb; padding: 6px 20px 6px 0;
  vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); padding: 6px 20px 6px 0; vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.total td { font-weight: 600; border-bottom: 0; }
details { margin: 20px 0; } summary { cursor: pointer; color: var(--accent); }
pre { font: 12.5px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; overflow-x: auto;
  background: #f6f8fa; border-radius: 8px; padding: 16px; }
@media (max-width: 640px) { main { padding: 28px 16px 64px; } h1 { font-size: 26px; } nav { position: static; } }
@media print { nav { display: none; } figure { break-inside: avoid; } }
"""
