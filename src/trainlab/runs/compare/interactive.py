"""Pictures to hover over, zoom and filter in JupyterLab, which draws Vega-Lite itself and offline."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlab.runs import display
from trainlab.runs.compare import coordinates, drawing
from trainlab.runs.compare.along import TITLES, Along
from trainlab.runs.compare.curves import smooth

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.figure import Figure

    from trainlab.runs.listing import Row

MIME = "application/vnd.vegalite.v5+json"  # what JupyterLab 4 has a renderer for
SMOOTHINGS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.97)  # to choose from: smoothed here, since Vega-Lite can't
MOST_POINTS = 200  # of one curve, evenly chosen: a notebook holds them all
_DIGITS = 6
_WIDTH, _HEIGHT = 700, 330  # pixels
_AXIS_WIDTH = 120


class Interactive:
    """A Vega-Lite picture, with the static one for places that can't draw it: PDF, a forge, an old viewer.

    An empty `spec` leaves the static one alone.
    """

    def __init__(self, spec: dict[str, Any], static: Figure) -> None:
        self.spec, self.static = spec, static

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return both pictures, as IPython asks for them."""
        png = io.BytesIO()
        self.static.savefig(png, format="png")
        bundle = {"image/png": png.getvalue(), "text/plain": "<a picture: open the notebook in JupyterLab>"}
        return bundle | ({MIME: self.spec} if self.spec else {})


def curves(
    points: pd.DataFrame, tags: Sequence[str], weight: float = 0.0, along: Along = Along.step
) -> Interactive:
    """Draw the curves of several runs, as `drawing.curves`: choose the tag, the smoothing and the x axis.

    Drag and scroll to move and zoom; a click on a run's name leaves it alone.
    """
    weights = sorted({*SMOOTHINGS, weight})
    values = [
        row
        for (run, tag), curve in points.groupby(["run", "tag"], sort=False)
        for row in _curve(str(run), str(tag), curve, weights)
    ]
    spec = _spec(values, _WIDTH, _HEIGHT) | {
        "params": [
            _choice("tag", list(tags), tags[0] if tags else ""),
            _choice("smoothing", [_column(each) for each in weights], _column(weight)),
            _choice("along", list(TITLES.values()), TITLES[along]),
        ],
        "transform": [
            {"filter": "datum.tag === tag"},
            {"calculate": "datum[along]", "as": "x"},
            {"calculate": "datum[smoothing]", "as": "y"},
            {"filter": "isValid(datum.x)"},
        ],
        "layer": [
            _line("value", drawing.FAINT, 1),
            _line("y", 1, 2) | {"params": [_ZOOM, _PICKED]},
            _POINTS,
            _HOVERED,
        ],
    }
    return Interactive(spec if values else {}, drawing.curves(points, tags, weight, along))


def parallel(rows: Sequence[Row], metric: str) -> Interactive:
    """Draw runs across parallel axes, as `drawing.parallel`: choose how many of the best, hover over one.

    A click on a run holds it; with Shift several.
    """
    order, axes = coordinates.axes(rows, metric)
    values = [
        {
            "run": name,
            "rank": rank + 1,
            "axis": _titled(axis),
            "place": axis.places[rank],
            "settings": ", ".join(f"{each.name} {each.labels[rank]}" for each in axes),
        }
        for rank, name in reversed(list(enumerate(display.labels(order))))  # the best on top
        for axis in axes
    ]
    ticks = [
        {"axis": _titled(axis), "place": place, "text": text} for axis in axes for place, text in axis.ticks
    ]
    spec = _spec(values, _AXIS_WIDTH * max(2, len(axes)), _HEIGHT) | {
        "params": [{"name": "best", "value": len(order), "bind": _slider(len(order))}],
        "layer": [_AXES, *_RUNS, *({"data": {"values": ticks}, **layer} for layer in _TICKS)],
        "encoding": _ACROSS,
    }
    return Interactive(spec if order and len(axes) > 1 else {}, drawing.parallel(rows, metric))


def _spec(values: list[dict[str, Any]], width: int, height: int) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",  # a name: nobody asks for it
        "width": width,
        "height": height,
        "data": {"values": values},
    }


def _curve(run: str, tag: str, curve: pd.DataFrame, weights: Sequence[float]) -> list[dict[str, Any]]:
    """Return a curve's points, thinned after they were smoothed by each weight."""
    kept = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), MOST_POINTS)).round().astype(int))
    columns = {title: curve[along.value].to_numpy(float) for along, title in TITLES.items()}
    columns["value"] = curve["value"].to_numpy(float)
    columns |= {_column(weight): smooth(columns["value"], weight) for weight in weights}
    names = list(columns)
    table = np.stack([columns[name][kept] for name in names], axis=1)
    told = {"run": run, "tag": tag, "few": len(curve) < drawing.FEW}
    return [told | dict(zip(names, map(_short, each), strict=True)) for each in table.tolist()]


def _short(number: float) -> float | None:
    return float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None


def _column(weight: float) -> str:
    return f"{weight:g}"


def _titled(axis: coordinates.Axis) -> str:
    return display.printable(axis.name) + ("\n(log)" if axis.scale == "log" else "")


def _choice(name: str, options: list[str], chosen: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": chosen,
        "bind": {"input": "select", "options": options, "name": f"{name} "},
    }


def _slider(most: int) -> dict[str, Any]:
    return {"input": "range", "min": 1, "max": max(1, most), "step": 1, "name": "the best "}


def _line(field: str, opacity: float, width: int) -> dict[str, Any]:
    return {
        "mark": {"type": "line", "strokeWidth": width, "clip": True},
        "encoding": _encoding(field) | {"opacity": _opacity(opacity)},
    }


def _opacity(opacity: float) -> dict[str, Any]:
    """Return how visible a run is: others give way to one that was clicked on in the legend."""
    return {"condition": {"param": "picked", "value": opacity, "empty": True}, "value": 0.04}


def _encoding(field: str) -> dict[str, Any]:
    legend = {"orient": "right", "labelLimit": 260, "symbolOpacity": 1}
    return {
        "x": {"field": "x", "type": "quantitative", "title": None},
        "y": {"field": field, "type": "quantitative", "title": None, "scale": {"zero": False}},
        "color": {"field": "run", "type": "nominal", "sort": None, "legend": legend},
    }


_ZOOM = {"name": "zoom", "select": "interval", "bind": "scales"}
_PICKED = {"name": "picked", "select": {"type": "point", "fields": ["run"]}, "bind": "legend"}
_HOVERED = {  # a line answers to the pointer as a whole; invisible points on it say which one is meant
    "mark": {"type": "point", "size": 90, "opacity": 0, "filled": True, "clip": True},
    "encoding": _encoding("y")
    | {
        "tooltip": [
            {"field": "run", "type": "nominal"},
            *({"field": title, "type": "quantitative", "format": ".6~g"} for title in TITLES.values()),
            {"field": "value", "type": "quantitative", "format": ".5g"},
            {"field": "y", "type": "quantitative", "title": "smoothed", "format": ".5g"},
        ]
    },
}
_POINTS = {  # a line of one point is none, and of a few points a sketch
    "transform": [{"filter": "datum.few"}],
    "mark": {"type": "point", "filled": True, "size": 30, "clip": True},
    "encoding": _encoding("y") | {"opacity": _opacity(1)},
}
_ACROSS = {
    "x": {
        "field": "axis",
        "type": "nominal",
        "sort": None,
        "scale": {"type": "point", "padding": 0.5},
        "axis": {
            "orient": "top",
            "title": None,
            "labelAngle": 0,
            "labelPadding": 16,  # for a second line
            "labelLimit": _AXIS_WIDTH - 4,
            "labelExpr": "split(datum.label, '\\n')",
            "domain": False,
            "ticks": False,
        },
    },
    "y": {"field": "place", "type": "quantitative", "axis": None, "scale": {"domain": [-0.04, 1.04]}},
}
_AXES = {
    "mark": {"type": "rule", "color": "#333"},
    "encoding": {"y": {"value": 0}, "y2": {"value": "height"}},
}
_TOOLTIP = [{"field": name, "type": "nominal"} for name in ("run", "rank", "settings")]
_LIT = {"or": [{"param": "held", "empty": False}, {"param": "hovered", "empty": False}]}
_BEST = {"transform": [{"filter": "datum.rank <= best"}]}
_BY_RUN = {"type": "point", "fields": ["run"]}
_RUNS = [
    {
        **_BEST,
        "mark": {"type": "line"},
        "encoding": {
            "detail": {"field": "run", "type": "nominal"},
            "color": {
                "field": "rank",
                "type": "quantitative",
                "scale": {"scheme": "viridis"},
                "legend": None,
            },
            "opacity": {"condition": {"test": _LIT, "value": 1}, "value": 0.6},
            "strokeWidth": {"condition": {"test": _LIT, "value": 4}, "value": 1.5},
        },
    },
    {  # a broad line, invisible, is easier to point at
        **_BEST,
        "params": [
            {"name": "hovered", "select": {**_BY_RUN, "on": "pointerover"}},
            {"name": "held", "select": _BY_RUN},
        ],
        "mark": {"type": "line", "strokeWidth": 9, "opacity": 0.001},  # 0 would not be hit
        "encoding": {"detail": {"field": "run", "type": "nominal"}, "tooltip": _TOOLTIP},
    },
]
_HALO = {"stroke": "white", "strokeWidth": 3}
_TICKS = [
    {
        "mark": {"type": "text", "align": "right", "dx": -5, "fontSize": 10, **behind},
        "encoding": {"text": {"field": "text", "type": "nominal"}},
    }
    for behind in (_HALO, {})
]
