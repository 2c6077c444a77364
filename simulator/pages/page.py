"""Self-contained HTML pages: one file that opens anywhere, without a network.

`render` fills a template that extends `page.html`: header, verdict, sections, footer. Plots are
embedded as JSON and drawn by one copy of plotly.js in the colours of the reader's light or dark
theme; without JavaScript the numbers and tables remain.
"""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from jinja2 import BaseLoader, ChoiceLoader, DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from simulator.pages.figures import INK, PAPER
from simulator.pages.style import STYLE

NOTHING = "\N{EN DASH}"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header>
<p class="kind">{{ kind }}</p>
<h1>{{ title }}</h1>
<p class="soft">{{ subtitle }}</p>
</header>
{% block content %}{% endblock %}
<footer>{% block footer %}{% endblock %} Made with similarity-codesign {{ version }}.</footer>
</main>
{% if plotly_file %}<script src="{{ plotly_file }}"></script>
{% else %}<script>{{ plotly }}</script>
{% endif %}<script>{{ draw }}</script>
</body>
</html>
"""

_MACROS = """
{% macro verdict(first, more=none) -%}
<section class="verdict" id="verdict"><p><strong>{{ first }}</strong></p>
{% if more %}<p>{{ more }}</p>{% endif %}</section>
{%- endmacro %}

{% macro cards(entries) -%}
<div class="cards">
{% for card in entries %}<div class="card">
<p class="name">{{ card.name }}</p>
<p class="value {{ card.tone }}">{{ card.value }} <small>{{ card.unit }}</small></p>
<p class="baseline">{{ card.baseline }}</p>
</div>
{% endfor %}</div>
{%- endmacro %}

{% macro table(columns, rows) -%}
<div class="wide"><table>
<thead><tr>{% for column in columns %}
<th{% if column.text %} class="text"{% endif %}>{{ column.name }}{% if column.unit %}
<small>{{ column.unit }}</small>{% endif %}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}
<tr{% if row.get("marked") %} class="marked"{% endif %}>{% for column in columns %}
<td class="{{ 'text' if column.text }}{{ ' changed' if column.key in row.get("changed", ()) }}">
{{- row.get(column.key, "")|shown }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{%- endmacro %}

{% macro facts(entries) -%}
<dl>{% for name, value in entries.items() %}<dt>{{ name }}</dt><dd>{{ value|shown }}</dd>
{% endfor %}</dl>
{%- endmacro %}
"""

# Colours of text, grid and background follow the theme; whatever goes wrong is left on the body.
_DRAW = """
window.addEventListener("error", (event) => { document.body.dataset.error = event.message; });
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function themed(text) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const figure = JSON.parse(text.replaceAll("@INK@", colour("--ink"))
    .replaceAll("@PAPER@", colour("--paper")));
  const layout = figure.layout;
  Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
  layout.font = { family: getComputedStyle(document.body).fontFamily, size: 13,
    color: colour("--ink") };
  layout.hoverlabel = { bgcolor: colour("--panel"), bordercolor: colour("--line"), align: "left",
    font: { color: colour("--ink"), size: 13 } };
  const lines = { gridcolor: colour("--grid"), linecolor: colour("--line"),
    zerolinecolor: colour("--line"), tickcolor: colour("--line") };
  for (const axes of [layout, layout.scene ?? {}]) {
    for (const key of Object.keys(axes)) {
      if (/^[xyz]axis\\d*$/.test(key)) Object.assign(axes[key], lines);
    }
  }
  return figure;
}
// A point with a page of its own opens it.
function linked(holder) {
  const page = (event) => event.points[0].data.meta?.pages?.[event.points[0].pointNumber];
  holder.removeAllListeners("plotly_click");
  holder.on("plotly_click", (event) => { if (page(event)) window.location.href = page(event); });
}
function draw() {
  const holders = document.querySelectorAll("[data-figure]");
  const drawn = Array.from(holders, (holder) => {
    const figure = themed(document.getElementById(holder.dataset.figure).textContent);
    return Plotly.react(holder, figure.data, figure.layout,
      { responsive: true, displayModeBar: false });
  });
  Promise.all(drawn).then(() => {
    holders.forEach(linked); document.body.dataset.drawn = holders.length; },
    (error) => { document.body.dataset.error = String(error); });
}
dark.addEventListener("change", draw);
draw();
"""


def render(
    template: str, loader: BaseLoader, context: Mapping[str, Any], *, plotly_file: str | None = None
) -> str:
    """Fill a template that extends `page.html` and may import the macros of `macros.html`.

    Args:
        template: its name in `loader`.
        loader: where it is found.
        context: what it shows; `kind`, `title` and `subtitle` head the page. All text is escaped.
        plotly_file: address of a copy of plotly.js that several pages share; `None` puts one into
            the page.
    """
    shared = DictLoader({"page.html": _PAGE, "macros.html": _MACROS})
    environment = Environment(
        loader=ChoiceLoader([loader, shared]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment.get_template(template).render(
        style=Markup(STYLE),
        plotly=Markup("" if plotly_file else get_plotlyjs()),
        plotly_file=plotly_file,
        draw=Markup(_DRAW),
        version=package_version(),
        **context,
    )


def figure_html(figure: go.Figure, name: str, caption: str) -> Markup:
    """A plot's place on the page, with its caption.

    Args:
        figure: its layout has a height in pixels.
        name: of the plot, unique on the page, without spaces.
        caption: how to read it; also read out in place of the plot.
    """
    described = figure.to_json().replace(INK, "@INK@").replace(PAPER, "@PAPER@")
    # Nothing inside may end the script element early.
    described = described.replace("<", "\\u003c")
    return Markup(
        '<figure id="{name}"><div class="plot" role="img" aria-label="{caption}" '
        'data-figure="{name}-data" style="height:{height}px"></div>'
        '<script type="application/json" id="{name}-data">{described}</script>'
        "<figcaption>{caption}</figcaption></figure>"
    ).format(
        name=name,
        caption=caption,
        height=int(figure.layout.height),
        described=Markup(described),
    )


def column(key: str, name: str, unit: str = "", *, text: bool = False) -> dict[str, Any]:
    """A column of a table: its key in the rows, its heading, its unit; text stands left."""
    return {"key": key, "name": name, "unit": unit, "text": text}


def card(name: str, value: str, unit: str, baseline: str, tone: str = "") -> dict[str, str]:
    """A key number: what it is, its unit, and what it is compared with."""
    return {"name": name, "value": value, "unit": unit, "baseline": baseline, "tone": tone}


def shown(value: Any) -> str:
    """A value as a page shows it: numbers short, nothing as a dash, nested values as JSON."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False)
    return value if isinstance(value, Markup) else str(value)


def number(value: float | None, digits: int = 3) -> str:
    """A number with a few significant digits, without an exponent where it can be; or a dash."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.{digits}g}"
    if abs(value) >= 1e-3:
        return f"{value:#.{digits}g}".rstrip(".")
    return f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """A share of 1 in percent, without the sign; a dash where it is unknown."""
    return NOTHING if share is None else f"{100 * share:.1f}"


def named(values: Mapping[str, Any]) -> str:
    """`name value` pairs in a line."""
    return ", ".join(f"{name} {shown(value)}" for name, value in values.items())


def package_version() -> str:
    """Version of this package; `from source` where it is not installed."""
    try:
        return importlib.metadata.version("similarity-codesign")
    except importlib.metadata.PackageNotFoundError:
        return "from source"


def versions(*packages: str) -> dict[str, str]:
    """Version of Python and of each package that is installed."""
    found = {"Python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
