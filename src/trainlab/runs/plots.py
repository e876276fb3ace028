"""Pictures of runs, each drawn once: to explore in JupyterLab, and to save as PNG, SVG or PDF."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from trainlab import extras, files
from trainlab.errors import UserError
from trainlab.runs import columns, display
from trainlab.runs.compare import TITLES, XAxis
from trainlab.runs.compare.curves import smooth
from trainlab.runs.compare.differences import is_number
from trainlab.runs.ranking import ranked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import altair as alt
    from matplotlib.figure import Figure

    from trainlab.runs.listing import Row

MIME = "application/vnd.vegalite.v5+json"  # the newest that JupyterLab 4 has a renderer for
_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"  # a name: nobody asks for it
SMOOTHINGS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.97)  # to choose from: smoothed here, since Vega-Lite can't
MOST_POINTS = 200  # of one curve, evenly chosen: a notebook holds them all
MOST_IN_FILE = 1000  # of one curve, more than a panel has pixels
MOST_AXES = 10  # settings: more can't be distinguished
FEW = 30  # points of a curve, each of which is marked
_FAINT = 0.25  # how visible the curve behind its smoothed self is
_MANY = 10  # runs: more get a colour each from a longer scale
_DIGITS = 6
_SIZE: dict[str, Any] = {"width": 640, "height": 280}  # pixels, of one tag
_AXIS_WIDTH = 120
_LOG_FROM = 10.0  # the largest number over the smallest, above which an axis is logarithmic
_TICKS = 5  # numbers beside an axis
_CLEAR = 0.04  # of the axis, between two of them
_ROOM = 0.12  # of the axis, below all values, where some runs lack the setting


@dataclass(frozen=True)
class Picture:
    """A Vega-Lite picture, which JupyterLab draws itself and offline; `image` draws it for all others."""

    chart: alt.TopLevelMixin

    @property
    def spec(self) -> dict[str, Any]:
        """Return the picture as Vega-Lite."""
        return self.chart.to_dict() | {"$schema": _SCHEMA}

    def image(self, format: str) -> bytes:
        """Return the picture as a file: 'png', 'svg' or 'pdf'. Nothing is asked of the network."""
        extras.need("vl_convert", "A file with a picture")
        import vl_convert

        spec: Any = self.spec
        if format == "png":
            return vl_convert.vegalite_to_png(spec, scale=2, allowed_base_urls=[])
        if format == "pdf":
            return vl_convert.vegalite_to_pdf(spec, allowed_base_urls=[])
        return vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]).encode()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the picture as IPython asks for it, and as a PNG for an old viewer or a forge."""
        words = "<a picture: open the notebook in JupyterLab>"
        return {MIME: self.spec, "image/png": self.image("png"), "text/plain": words}


class Axis(NamedTuple):
    """A setting or the metric: where each run crosses it, from 0 to 1, and what stands beside it."""

    name: str
    places: list[float]  # one a run
    labels: list[str]  # each run's value
    ticks: list[tuple[float, str]]
    scale: str  # 'linear', 'log' or 'names'


def curves(  # noqa: PLR0913, PLR0917
    points: pd.DataFrame,
    tags: Sequence[str],
    weight: float = 0.0,
    along: XAxis = XAxis.step,
    for_file: bool = False,
    logarithmic: bool = False,
) -> Picture:
    """Draw the curves of several runs over each other, a panel for each tag.

    Choose the smoothing and the x axis, drag and scroll to zoom; a click on a run's name leaves it alone.

    Args:
        points: What `compare.curves.points` returns, or `compare.curves.folded`, whose spread is drawn too.
        tags: The panels, from top to bottom.
        weight: TensorBoard's smoothing, with the exact curve faint behind.
        along: What the curves are drawn over; runs whose place along it isn't known are left out.
        for_file: Draw more points of each curve, and nothing that only answers to a pointer.
        logarithmic: Draw values by their logarithm; those that have none are left out.
    """
    extras.need("altair", "A picture of runs")
    import altair as alt

    most = MOST_IN_FILE if for_file else MOST_POINTS
    known = points.dropna(subset=[along.value])
    if known.empty or not tags:
        return _sentence("No run has such a curve.")
    weights = sorted({*SMOOTHINGS, weight})
    runs = list(dict.fromkeys((known if for_file else points)["run"]))  # on the screen x may be another
    picked = alt.selection_point(name="picked", fields=["run"], bind="legend")
    colour = alt.Color("run:N", title=None, sort=None).scale(
        domain=runs, scheme="tableau10" if len(runs) <= _MANY else "turbo"
    ).legend(labelLimit=260, symbolOpacity=1)  # fmt: skip
    panels = []
    for number, tag in enumerate(tags):
        chosen = points[points["tag"] == tag].groupby("run", sort=False)
        drawn = [thinned(curve, weights, most) for _, curve in chosen]
        values = alt.to_values(pd.concat(drawn))["values"] if drawn else []
        base = (
            alt.Chart(alt.InlineData(values=values))
            .transform_calculate(
                x="datum[along]",
                y="datum[smoothing]",
                low="datum['low ' + smoothing]",
                high="datum['high ' + smoothing]",
            )
            .transform_filter("isValid(datum.x)" + " && datum.value > 0 && datum.y > 0" * logarithmic)
            .encode(x=alt.X("x:Q", title=None), color=colour)
        )
        title = display.printable(tag)
        scale = alt.Scale(type="log") if logarithmic else alt.Scale(zero=False)
        y, exactly = (alt.Y(f"{name}:Q", title=title, scale=scale) for name in ("y", "value"))
        line = base.mark_line(clip=True, strokeWidth=2).encode(y=y, opacity=_unless(picked, 1))
        exact = base.mark_line(clip=True, strokeWidth=1).encode(y=exactly, opacity=_unless(picked, _FAINT))
        marked = base.mark_point(clip=True, filled=True, size=30).transform_filter("datum.few")
        # a line answers to the pointer as a whole; invisible points on it say which one is meant
        hovered = base.mark_point(clip=True, filled=True, size=90, opacity=0).encode(
            y=y,
            tooltip=[
                alt.Tooltip("run:N"),
                *(alt.Tooltip(f"{title}:Q", format=".6~g") for title in TITLES.values()),
                alt.Tooltip("value:Q", format=".5g"),
                alt.Tooltip("y:Q", title="smoothed", format=".5g"),
            ],
        )
        zoom = alt.selection_interval(name=f"zoom_{number}", bind="scales")
        # the same layer for both, and once for what all panels share: twice would be refused
        line = line.add_params(zoom, picked) if number == 0 else line.add_params(zoom)
        spread = base.mark_area(clip=True, opacity=_FAINT).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
        spread = spread.transform_filter("isValid(datum.low)" + " && datum.low > 0" * logarithmic)
        layers = [spread] if "low" in points else []
        layers += [exact, line, marked.encode(y=y, opacity=_unless(picked, 1))]
        layers += [] if for_file else [hovered]
        below = alt.Title(alt.ExprRef("along"), orient="bottom", fontSize=11, fontWeight="normal")
        panels.append(alt.layer(*layers).properties(title=below, **_SIZE))
    smoothing = alt.binding_select(options=[f"{each:g}" for each in weights], name="smoothing ")
    place = alt.binding_select(options=list(TITLES.values()), name="along ")
    choices = (
        alt.param(name="smoothing", value=f"{weight:g}", bind=smoothing),
        alt.param(name="along", value=TITLES[along], bind=place),
    )
    return Picture(alt.vconcat(*panels).add_params(*choices))


def parallel(rows: Sequence[Row], metric: str) -> Picture:
    """Draw each run as a line across its settings to the metric; the best are drawn last, and darkest.

    Choose how many of the best, hover over one; a click on a run holds it, with Shift several.
    """
    extras.need("altair", "A picture of runs")
    import altair as alt

    order, found, more = axes(rows, metric)
    if len(found) < 2 or not order:
        return _sentence(f"No settings that differ between runs with {metric or 'a metric'}.")
    titles = [display.printable(each.name) + ("\n(log)" if each.scale == "log" else "") for each in found]
    lines, beside = [], []
    for title, each in zip(titles, found, strict=True):
        beside += [{"axis": title, "place": place, "text": text} for place, text in each.ticks]
    for rank, name in reversed(list(enumerate(display.labels(order)))):
        settings = display.printable(", ".join(f"{each.name} {each.labels[rank]}" for each in found))
        run = {"run": name, "rank": rank + 1, "settings": settings}
        for title, each in zip(titles, found, strict=True):
            lines.append(run | {"axis": title, "place": each.places[rank]})
    x = alt.X("axis:N", sort=None, title=None).scale(type="point", padding=0.5).axis(
        orient="top", labelAngle=0, labelPadding=16, labelLimit=_AXIS_WIDTH - 4,
        labelExpr="split(datum.label, '\\n')", domain=False, ticks=False,
    )  # fmt: skip
    y = alt.Y("place:Q", axis=None).scale(domain=[-0.04, 1.04])
    count = alt.binding_range(min=1, max=len(order), step=1, name="the best ")
    best = alt.param(name="best", value=len(order), bind=count)
    hovered = alt.selection_point(name="hovered", fields=["run"], on="pointerover", empty=False)
    held = alt.selection_point(name="held", fields=["run"], empty=False)
    base = alt.Chart(alt.InlineData(values=lines)).transform_filter("datum.rank <= best").encode(x=x, y=y)
    drawn = base.mark_line().encode(
        detail="run:N",
        color=alt.Color("rank:Q", legend=None).scale(scheme="viridis"),
        opacity=alt.when(held | hovered).then(alt.value(1)).otherwise(alt.value(0.6)),
        strokeWidth=alt.when(held | hovered).then(alt.value(4)).otherwise(alt.value(1.5)),
    )
    broad = (  # a broad line, invisible, is easier to point at; one of opacity 0 would not be hit
        base.mark_line(strokeWidth=9, opacity=0.001)
        .encode(detail="run:N", tooltip=["run:N", "rank:N", "settings:N"])
        .add_params(hovered, held)
    )
    axes_drawn = alt.Chart(alt.InlineData(values=beside)).encode(x=x)
    rules = axes_drawn.mark_rule(color="#777").encode(y=alt.value(0), y2=alt.value("height"))
    text = axes_drawn.encode(y=y, text="text:N")
    placed: dict[str, Any] = {"align": "right", "dx": -5, "fontSize": 10}
    halo = text.mark_text(**placed, stroke="white", strokeWidth=3)
    title = f"{len(order)} runs, the darkest are the best by {display.printable(metric)}"
    chart = alt.layer(rules, drawn, broad, halo, text.mark_text(**placed)).add_params(best)
    title += f"; {more} more settings differ" if more else ""
    width = _AXIS_WIDTH * len(found)
    return Picture(chart.configure_view(stroke=None).properties(width=width, height=330, title=title))


def importance(frame: pd.DataFrame, reason: str = "") -> Picture:
    """Draw the importance of settings, [setting, importance, low, high], as bars, or the reason for none."""
    extras.need("altair", "A picture of runs")
    import altair as alt

    if not len(frame):
        return _sentence(reason)
    values: Any = frame.assign(setting=frame["setting"].map(display.printable)).to_dict("records")
    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("setting:N", sort=None, title=None).axis(labelLimit=220),
        tooltip=["setting:N", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in frame.columns[1:])],
    )
    share = "share of the variance of ranks; the line holds 95 % of the resamples"
    return Picture(
        alt.layer(
            base.mark_bar(color="#4c78a8").encode(x=alt.X("importance:Q", title=share)),
            base.mark_rule(color="#777", strokeWidth=2).encode(x=alt.X("low:Q", title=share), x2="high:Q"),
        ).properties(width=500, height=alt.Step(26))
    )


def axes(rows: Sequence[Row], metric: str, most: int = MOST_AXES) -> tuple[list[Row], list[Axis], int]:
    """Return the runs that have the metric, the best first, their axes, and how many settings have none.

    Of more than `most` settings those with the most different values are left out last.
    """
    order = ranked(rows, metric)
    names = columns.differing(order)
    varied = sorted(names, key=lambda name: -len({display.short(row.config.get(name)) for row in order}))
    kept = [name for name in names if name in varied[:most]]
    found = [axis(name, [row.config.get(name) for row in order]) for name in kept]
    return order, [*found, axis(metric, [row.best[metric] for row in order])], len(names) - len(kept)


def axis(name: str, values: Sequence[Any]) -> Axis:
    """Return the axis of some values: numbers by their size, others by name; None lies lowest.

    Positive numbers that span more than a factor of 10 get a logarithmic axis.
    """
    labels = pd.Series(["none" if each is None else display.short(each) for each in values], dtype=object)
    given = pd.Series(values, dtype=object)[[each is not None for each in values]]
    numeric = len(given) and all(is_number(each) and math.isfinite(each) for each in given)
    scale, at = "names", labels[given.index].rank(method="dense")
    if numeric:
        at = given.astype(float)
        scale = "log" if at.min() > 0 and at.max() > _LOG_FROM * at.min() else "linear"
        at = at.map(math.log) if scale == "log" else at
    shown = dict(zip(at, labels[given.index], strict=True))
    if numeric and len(shown) > _TICKS:
        even = np.linspace(at.min(), at.max(), _TICKS)
        shown = {each: f"{np.exp(each) if scale == 'log' else each:.3g}" for each in even}
    floor, low, span = (0.0 if len(given) == len(values) else _ROOM), at.min(), at.max() - at.min()

    def place(number: float) -> float:
        return floor + (1 - floor) * float((number - low) / span if span else 0.5)

    ticks = [(0.0, "none")] if floor else []
    for each in sorted(shown):
        if not ticks or place(each) - ticks[-1][0] > _CLEAR:
            ticks.append((place(each), shown[each]))
    places = at.map(place).reindex(labels.index, fill_value=0.0)
    return Axis(name, places.tolist(), labels.tolist(), ticks, scale)


def thinned(curve: pd.DataFrame, weights: Sequence[float], most: int) -> pd.DataFrame:
    """Return a curve's points, thinned to at most `most` after they were smoothed by each weight.

    Its columns: the titles of the axes, the exact `value`, each weight as text, `run`, and `few`; of runs
    that are folded also 'low 0.6' and 'high 0.6' of each weight.
    """
    kept = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), most)).round().astype(int))
    found = curve.rename(columns={along.value: title for along, title in TITLES.items()})
    ends = {"": "value", "low ": "low", "high ": "high"}
    found = found[[*TITLES.values(), "value"]].assign(
        **{
            f"{name}{weight:g}": smooth(curve[column], weight)
            for name, column in ends.items()
            if column in curve and curve[column].notna().any()
            for weight in weights
        }
    )
    rounded = found.iloc[kept].astype(float).map(lambda each: float(f"{each:.{_DIGITS}g}"))
    return rounded.assign(run=curve["run"].iloc[0], few=len(curve) < FEW)


def _unless(picked: alt.Parameter, opacity: float) -> Any:
    """Return how visible a run is: others give way to one that was clicked on in the legend."""
    extras.need("altair", "A picture of runs")
    import altair as alt

    return alt.when(picked).then(alt.value(opacity)).otherwise(alt.value(0.04))


def _sentence(text: str) -> Picture:
    """Return a picture that says why there is none."""
    extras.need("altair", "A picture of runs")
    import altair as alt

    words = textwrap.wrap(display.printable(text), 80)
    chart = alt.Chart(alt.InlineData(values=[{}])).mark_text(text=words, fontSize=13)
    return Picture(chart.properties(width=_SIZE["width"], height=60))


def save(path: Path, content: bytes) -> None:
    """Write a picture or a page, all or nothing; raise UserError where the disk refuses."""
    try:
        files.write(path, content)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Name another file with -o.") from None


def plot_curves(history: pd.DataFrame, panels: Mapping[str, Sequence[str]]) -> Figure:
    """Draw a run's curves, [tag, step, wall_time, value], a panel for each title and its tags.

    What is neither train/ nor val/ is a baseline, and dashed.
    """
    extras.need("matplotlib", "plot_curves")
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(1, len(panels), figsize=(13, 3.5), layout="constrained", squeeze=False)
    for panel, (title, tags) in zip(grid[0], panels.items(), strict=True):
        for tag in tags:
            curve = history[history["tag"] == tag]
            if len(curve):
                style = ".-" if tag.startswith(("train/", "val/")) else "--"
                panel.plot(curve["step"], curve["value"], style, label=tag)
        panel.set(title=title, xlabel="step")
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize="small")
    plt.close(figure)
    return figure
