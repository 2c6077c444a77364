"""Self-contained HTML pages: one file that opens anywhere, without a network.

`render` fills a template that extends `page.html`: header, verdict, sections, footer. Plots are
embedded as JSON and drawn by one copy of plotly.js in the colours of the reader's light or dark
theme (`draw.js`); without JavaScript the numbers and tables remain.
"""

import functools
import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from simulator.pages.figures import INK, PAPER
from simulator.results.tables import shown

TEMPLATES = PackageLoader("simulator", "templates")


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
    return fragment(
        template,
        loader,
        {
            "plotly": Markup("" if plotly_file else get_plotlyjs()),
            "plotly_file": plotly_file,
            "version": package_version(),
            **context,
        },
    )


def fragment(template: str, loader: BaseLoader, context: Mapping[str, Any]) -> Markup:
    """Fill a template that is a part of a page.

    Args:
        template: its name in `loader`.
        loader: where it is found.
        context: what it shows. All text is escaped.
    """
    return Markup(_environment(loader).get_template(template).render(context))


@functools.cache
def _environment(loader: BaseLoader) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([loader, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment


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
    context = {
        "name": name,
        "caption": caption,
        "height": int(figure.layout.height),
        "figure": Markup(described),
    }
    return fragment("figure.html", TEMPLATES, context)


def card(name: str, value: str, unit: str, baseline: str, tone: str = "") -> dict[str, str]:
    """A key number: what it is, its unit, and what it is compared with."""
    return {"name": name, "value": value, "unit": unit, "baseline": baseline, "tone": tone}


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
