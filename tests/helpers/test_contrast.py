"""Every text that helpers draw can be read: WCAG's contrast of AA with what lies beneath it."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from helpers import claims, figures


def luminance(color: np.ndarray) -> np.ndarray:
    """WCAG's relative luminance of colours (..., 3) between 0 and 1."""
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def contrast_ratio(one: np.ndarray, other: np.ndarray) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return float((light + 0.05) / (dark + 0.05))


def pale_texts(fig: Figure) -> list[str]:
    """The texts of a figure whose contrast with what is drawn beneath them is under 4.5:1."""
    fig.canvas.draw()
    texts = [t for t in fig.findobj(Text) if t.get_text().strip() and t.get_visible()]
    boxes = [text.get_window_extent().extents for text in texts]
    for text in texts:
        text.set_visible(False)
    fig.set_layout_engine("none")  # everything stays where it was with its texts
    fig.canvas.draw()
    picture = np.asarray(fig.canvas.buffer_rgba())[::-1, :, :3]
    found = []
    for text, (left, bottom, right, top) in zip(texts, boxes, strict=True):
        under = picture[int(bottom) : int(top) + 1, int(left) : int(right) + 1].reshape(-1, 3)
        if not len(under):  # beside the figure, which grows when it is stored
            under = picture[:1, 0]
        colors, counts = np.unique(under, axis=0, return_counts=True)
        ratio = contrast_ratio(colors[counts.argmax()] / 255, np.array(to_rgb(text.get_color())))
        if ratio < 4.5:
            found.append(f"{text.get_text()}: {ratio:.2f}")
    return found


def drawings() -> dict[str, Figure]:
    """One figure of each kind that helpers draw, with all six colours of the palette."""
    figures.use_style()
    series = {f"way {n}": [n + 1, 2 * n + 3] for n in range(6)}
    shades = np.linspace(-1, 1, 12).reshape(6, 2)
    lit = dict(enumerate(figures.PALETTE))
    curves, bars = plt.subplots(), plt.subplots()
    figures.curves(curves[1], [1, 10], series)
    figures.bars(bars[1], ["first", "second"], series)
    names = {"rows": range(6), "columns": ["x", "y"], "name": "E"}
    return {
        "curves": curves[0],
        "bars": bars[0],
        "matrices": figures.matrices(
            figures.Matrix(shades, lit=lit, **names),
            figures.Matrix(shades, lit={2: figures.ORANGE}, **names),
            figures.Matrix(shades, columns_lit={1: figures.SKY}, **names),
            between="@=",
            title="A product",
        ),
        "lookup": figures.lookup([[0, 1, 2], [3, 4, 5]], figures.Matrix(shades, **names)),
        "claims": claims.draw_map(),
    }


def test_every_text_that_helpers_draw_can_be_read() -> None:
    found = {name: pale_texts(fig) for name, fig in drawings().items()}
    plt.close("all")
    assert found == dict.fromkeys(found, [])


@pytest.mark.parametrize(
    ("color", "ground", "pale"),
    [("#66707A", "white", False), ("#D55E00", "white", True), ("white", "#0072B2", False)],
)
def test_pale_text_in_a_figure_is_found(color: str, ground: str, pale: bool) -> None:
    fig, ax = plt.subplots(facecolor=ground)
    ax.axis("off")
    ax.text(0.5, 0.5, "a row", color=color)
    assert bool(pale_texts(fig)) is pale
    plt.close(fig)
