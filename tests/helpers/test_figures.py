"""The drawings show what they are given, and every figure carries its alt text."""

import io

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import pytest

from helpers import figures

ALT = "A line that rises from the lower left to the upper right corner."


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(fig: plt.Figure) -> list[str]:
    return [text.get_text() for ax in fig.axes for text in ax.texts if text.get_text()]


def test_show_displays_a_small_png_with_its_alt_text(monkeypatch) -> None:
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    fig, ax = plt.subplots(figsize=(4, 2))
    ax.plot([0, 1], [0, 1])
    figures.show(fig, alt=f"{ALT[:20]}\n{ALT[20:]}")
    image, words = shown
    assert " ".join(ALT.split())[25:] in words.data and words.data.startswith("<details>")
    data, metadata = image._repr_mimebundle_()
    assert isinstance(image, IPython.display.Image)
    assert metadata["image/png"]["alt"] == " ".join(f"{ALT[:20]} {ALT[20:]}".split())
    picture = PIL.Image.open(io.BytesIO(image.data))
    assert picture.format == "PNG" and len(image.data) < 30_000
    assert image.width == pytest.approx(picture.width / 1.5, abs=1)
    assert not plt.fignum_exists(fig.number)


def test_show_wants_words() -> None:
    fig, _ = plt.subplots()
    with pytest.raises(ValueError, match="too short"):
        figures.show(fig, alt="A figure.")


def test_curves_write_each_name_once_and_apart() -> None:
    fig, ax = plt.subplots()
    figures.curves(ax, [1, 10, 100], {"one": [1, 2, 3], "two": [1, 2, 3.01], "six": [1, 2, 3.02]})
    assert sorted(texts(fig)) == ["one", "six", "two"]
    fig.canvas.draw()
    heights = sorted(text.get_window_extent().y0 for text in ax.texts)
    assert min(np.diff(heights)) > 10
    assert ax.get_xscale() == ax.get_yscale() == "log"
    styles = {(line.get_linestyle(), line.get_marker()) for line in ax.lines}
    assert len(styles) == 3  # told apart without colour


def test_curves_on_linear_axes() -> None:
    _, ax = plt.subplots()
    figures.curves(ax, [0, 1], {"zero": [0, 0]}, log="")
    assert ax.get_xscale() == ax.get_yscale() == "linear"


def test_matrices_write_every_number_label_and_sign() -> None:
    left = figures.Matrix([[1, 0], [0, -1]], "P", rows=["a", "b"], digits=0)
    right = figures.Matrix([[0.25], [2]], "E", columns=["d"], lit={1: figures.BLUE})
    fig = figures.matrices(left, right, between="@", title="A product")
    written = texts(fig)
    assert sorted(t for t in written if t in "0 1 −1 0.2 2.0".split()) == sorted(
        ["1", "0", "0", "−1", "0.2", "2.0"]
    )
    assert {"P", "E", "a", "b", "d", "@", "A product"} <= set(written)


def framed(fig: plt.Figure) -> list[tuple[float, str]]:
    """Top and colour of every frame."""
    return [
        (patch.get_y(), plt.matplotlib.colors.to_hex(patch.get_edgecolor()).upper())
        for patch in fig.axes[0].patches
        if not patch.get_fill()
    ]


def test_lit_rows_are_framed() -> None:
    fig = figures.matrices(figures.Matrix(np.ones((4, 2)), lit={2: figures.BLUE}))
    assert framed(fig) == [(2.0, figures.BLUE)]


def test_lookup_draws_the_row_of_each_id_in_its_colour() -> None:
    table = figures.Matrix(np.arange(8).reshape(4, 2), "table", rows=range(4), digits=0)
    fig = figures.lookup([[3, 1], [1, 1]], table)
    colors = [color for _, color in framed(fig)]
    # in the batch, on the table, and in what comes out: id 3 once, id 1 three times
    assert sorted(colors.count(c) for c in set(colors)) == [1 + 1 + 1, 3 + 1 + 3]
    assert texts(fig).count("6") == 2 and texts(fig).count("7") == 2  # row 3: table and out
    assert "ids  (2, 2)" in texts(fig) and "out  (2, 2, 2)" in texts(fig)


def test_bars_are_named_and_valued_from_top_to_bottom() -> None:
    fig, ax = plt.subplots()
    figures.bars(ax, ["first", "second"], {"out": [3, 1], "home": [2, 0.5]})
    fig.canvas.draw()
    assert texts(fig) == ["3.0 out", "1.0 out", "2.0 home", "0.5 home"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    assert np.allclose(middles, [-0.2, 0.8, 0.2, 1.2]) and ax.yaxis_inverted()
    figures.bars(plt.subplots()[1], ["alone"], {"": [2]}, fmt="%.0f GB")
    assert "2 GB" in texts(plt.gcf())
