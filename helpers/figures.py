"""One style for every figure, alt text for every reader, and the drawings of the mechanism."""

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from IPython.display import HTML, Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Okabe and Ito's palette, told apart by colour-blind readers; https://jfly.uni-koeln.de/color/
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, INK, GREY = "#CC79A7", "#56B4E9", "#1F2933", "#66707A"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS, DASHES = "osD^vP", ("-", "--", "-.", ":", "-", "--")


def use_style() -> None:
    """Give matplotlib the course's style: white ground, readable sizes, no frame, a light grid."""
    plt.rcParams.update(
        {
            "figure.facecolor": "white",
            "figure.figsize": (7.2, 3.4),
            "figure.constrained_layout.use": True,
            "font.size": 10.5,
            "text.color": INK,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "axes.titlesize": 11.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "grid.color": "#E3E7EB",
            "xtick.color": INK,
            "ytick.color": INK,
            "lines.linewidth": 2.0,
            "lines.markersize": 5.0,
        }
    )


def show(fig: Figure, alt: str) -> None:
    """Display `fig` as a PNG that carries `alt`, what a reader who cannot see it is told.

    Line breaks in `alt` become spaces. Raises ValueError where it is too short to say anything
    (under 40 characters).
    """
    alt = " ".join(alt.split())
    if len(alt) < 40:
        raise ValueError(f"alt={alt!r} is too short: say in a sentence what the figure shows.")
    drawn, png = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=150, bbox_inches="tight", pad_inches=0.12)
    plt.close(fig)
    # A palette of 256 colours is enough for what we draw, and makes the file a third as large.
    picture = PIL.Image.open(drawn).convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE)
    picture.save(png, format="png", optimize=True)
    width, height = (round(side / 1.5) for side in picture.size)
    display(Image(png.getvalue(), alt=alt, width=width, height=height))
    # JupyterLab reads no alt text out of an image's metadata, so the words also stand below it.
    words = f"<details><summary>The figure in words</summary>{html.escape(alt)}</details>"
    display(HTML(words))


def curves(
    ax: Axes, x: Sequence[float], series: Mapping[str, Sequence[float]], log: str = "xy"
) -> None:
    """Draw each of `series` against `x`, its name at its right end; `log` names the log axes."""
    ax.set_xscale("log" if "x" in log else "linear")
    ax.set_yscale("log" if "y" in log else "linear")
    ends = []
    for i, (name, y) in enumerate(series.items()):
        ax.plot(x, y, DASHES[i % 6], marker=MARKERS[i % 6], color=PALETTE[i % 6])
        ends.append((y[-1], name))
    ax.figure.canvas.draw()  # fixes the scales, which place the labels below
    ends.sort()
    bottom = -np.inf
    for y, name in ends:
        at = ax.transData.transform((x[-1], y))
        bottom = max(at[1], bottom + 15 * ax.figure.dpi / 72)  # labels keep a line's distance
        ax.annotate(
            name,
            (x[-1], y),
            xytext=(8, (bottom - at[1]) * 72 / ax.figure.dpi),
            textcoords="offset points",
            weight="bold",
            va="center",
            annotation_clip=False,
        )


def bars(
    ax: Axes, names: Sequence[str], series: Mapping[str, Sequence[float]], fmt: str = "%.1f"
) -> None:
    """Draw horizontal bars from top to bottom: a group for each name, a bar for each of `series`.

    Each bar has its value at its end, and the name of its series where there are several.
    """
    height = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        middle = np.arange(len(names)) - 0.4 + height * (i + 0.5)
        fill = {"color": PALETTE[i % 6], "hatch": ("", "//")[i % 2], "edgecolor": "white"}
        drawn = ax.barh(middle, np.asarray(values, dtype=float), 0.94 * height, **fill)
        ax.bar_label(drawn, fmt=fmt + (f" {name}" if len(series) > 1 else ""), padding=4)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.margins(x=0.15)


@dataclass
class Matrix:
    """A matrix to draw: `values` (rows, columns), a `name` above it, labels, and lit rows.

    `lit` maps a row to the colour of its frame; where it is given, the other rows fade.
    `columns_lit` does the same for columns. `digits` are the decimals written in each cell.
    """

    values: Sequence[Sequence[float]]
    name: str = ""
    rows: Sequence[object] = ()
    columns: Sequence[object] = ()
    lit: Mapping[int, str] = field(default_factory=dict)
    columns_lit: Mapping[int, str] = field(default_factory=dict)
    digits: int = 1


def matrices(*panels: Matrix, between: Sequence[str] = (), title: str = "") -> Figure:
    """Draw matrices side by side with the signs `between` them, such as "@" and "="."""
    fig, ax = _board()
    x, tallest = 0.0, max(len(p.values) for p in panels)
    for i, panel in enumerate(panels):
        values = np.asarray(panel.values, dtype=float)
        x += 0.9 * bool(len(panel.rows)) * max([len(str(r)) for r in panel.rows], default=0) / 4
        _matrix(ax, panel, x, (tallest - len(values)) / 2)
        x += values.shape[1]
        if i < len(between):
            ax.text(x + 0.8, tallest / 2, between[i], size=17, ha="center", va="center")
        x += 1.6
    return _finish(fig, ax, x - 1.6, tallest, title)


def lookup(ids: Sequence[Sequence[int]], table: Matrix, title: str = "") -> Figure:
    """Draw ids of shape (batch, length) becoming rows of shape (batch, length, D).

    Each id keeps one colour: in the batch, on the row of the table, and on the rows that come out.
    """
    ids, values = np.asarray(ids), np.asarray(table.values, dtype=float)
    (batch, length), (v, d) = ids.shape, values.shape
    colors = {int(i): PALETTE[n % len(PALETTE)] for n, i in enumerate(np.unique(ids))}
    fig, ax = _board()
    tall = max(v, batch * (length + 0.8) - 0.8)
    top = (tall - batch) / 2
    ax.text(length / 2, top - 0.45, f"ids  ({batch}, {length})", ha="center", weight="bold")
    for (r, c), i in np.ndenumerate(ids):
        _cell(ax, c, top + r, str(i), "white", weight="bold")
        _frame(ax, c + 0.06, top + r + 0.08, 0.88, 0.84, colors[int(i)])
    x = length + 2.6 + max([len(str(r)) for r in table.rows], default=0) / 4
    lit = Matrix(values, table.name, table.rows, table.columns, colors, digits=table.digits)
    _matrix(ax, lit, x, (tall - v) / 2)
    ax.text(length + 0.9, tall / 2, "→", size=20, ha="center", va="center")
    ax.text(x + d + 0.95, tall / 2, "→", size=20, ha="center", va="center")
    x += d + 2.6
    for b in range(batch):
        y = (tall - batch * (length + 0.8) + 0.8) / 2 + b * (length + 0.8)
        name = f"out  ({batch}, {length}, {d})" if b == 0 else ""
        rows = {n: colors[int(i)] for n, i in enumerate(ids[b])}
        _matrix(ax, Matrix(values[ids[b]], name, ids[b], lit=rows, digits=table.digits), x, y)
    return _finish(fig, ax, x + d, tall, title)


def _board() -> tuple[Figure, Axes]:
    fig, ax = plt.subplots(layout="none")
    ax.axis("off")
    ax.set_position((0, 0, 1, 1))
    return fig, ax


def _finish(fig: Figure, ax: Axes, width: float, height: float, title: str) -> Figure:
    ax.set_xlim(-1.2, width + 0.3)
    ax.set_ylim(height + 0.2, -1.3 - 1.1 * bool(title))
    fig.set_size_inches((width + 1.5) * 0.5, (height + 1.5 + 1.1 * bool(title)) * 0.34)
    if title:
        ax.text(-1.1, -2.15, title, size=11.5, weight="bold", va="center")
    return fig


def _matrix(ax: Axes, panel: Matrix, x: float, y: float) -> None:
    values = np.asarray(panel.values, dtype=float)
    rows, columns = values.shape
    largest = np.abs(values).max() or 1.0
    names = y - 0.45 - 0.65 * bool(len(panel.columns))
    ax.text(x + columns / 2, names, panel.name, ha="center", weight="bold")
    for (r, c), value in np.ndenumerate(values):
        off = (panel.lit and r not in panel.lit, panel.columns_lit and c not in panel.columns_lit)
        shade = plt.get_cmap("PuOr")(0.5 + 0.24 * value / largest)
        text = f"{value:.{panel.digits}f}".replace("-", "−")
        faint = any(off) or value == 0
        _cell(ax, x + c, y + r, text, "#F4F5F7" if faint else shade, GREY if faint else INK)
    for r, label in enumerate(panel.rows):
        ax.text(x - 0.2, y + r + 0.5, str(label), ha="right", va="center", size=9, color=GREY)
    for c, label in enumerate(panel.columns):
        ax.text(x + c + 0.5, y - 0.3, str(label), ha="center", va="center", size=9, color=GREY)
    for r, color in panel.lit.items():
        _frame(ax, x, y + r, columns, 1, color)
    for c, color in panel.columns_lit.items():
        _frame(ax, x + c, y, 1, rows, color)


def _cell(
    ax: Axes, x: float, y: float, text: str, fill: object, color: str = INK, weight: str = "normal"
) -> None:
    ax.add_patch(Rectangle((x, y), 1, 1, facecolor=fill, edgecolor="white", linewidth=1))
    center = {"ha": "center", "va": "center"}
    ax.text(x + 0.5, y + 0.52, text, size=8.5, color=color, weight=weight, **center)


def _frame(ax: Axes, x: float, y: float, width: float, height: float, color: str) -> None:
    ax.add_patch(
        Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=2.4, zorder=3)
    )
