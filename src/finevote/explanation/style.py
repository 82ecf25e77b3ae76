"""How every figure looks: colours, sizes, text that fits, and the way it becomes a file. No global state."""

import warnings
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.textpath import TextToPath

INK = "#1f2328"
MUTED = "#656d76"
GRID = "#e4e7eb"
RIGHT = "#0072B2"  # blue and vermillion of Okabe and Ito stay apart for colour-blind readers
WRONG = "#D55E00"
VOTE = "#F0E442"
VOTE_MAP = "viridis"  # of matplotlib; its order is seen by colour-blind readers and in grey
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
TICK, CROSS = "\N{CHECK MARK}", "\N{BALLOT X}"

TITLE_PT, TEXT_PT, SMALL_PT = 13.0, 9.5, 8.5
DPI = 150
FAMILY = "DejaVu Sans"  # comes with matplotlib
_OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang SC", "Arial Unicode MS")


def font(size: float, *, bold: bool = False) -> FontProperties:
    """Return the house font at `size` points."""
    return FontProperties(family=list(_families()), size=size, weight="bold" if bold else "normal")


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty white figure, width and height in inches."""
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, left_in: float, top_in: float, width_in: float, height_in: float) -> Axes:
    """Return axes placed in inches from the figure's left and top."""
    width, height = figure.get_size_inches()
    return figure.add_axes((left_in / width, 1 - (top_in + height_in) / height, width_in / width, height_in / height))


def add_text(
    figure: Figure,
    text: str,
    left_in: float,
    top_in: float,
    *,
    size: float = TEXT_PT,
    color: str = INK,
    bold: bool = False,
    align: Literal["left", "center", "right"] = "left",
) -> None:
    """Write text whose top is `top_in` inches below the figure's top; a dollar sign is a dollar sign."""
    width, height = figure.get_size_inches()
    figure.text(
        left_in / width,
        1 - top_in / height,
        drawable(text),
        fontproperties=font(size, bold=bold),
        color=color,
        ha=align,
        va="top",
        linespacing=1.25,
        parse_math=False,
    )


def add_heading(
    figure: Figure, title: str, subtitle: str, *, left_in: float, width_in: float, max_lines: int = 1
) -> None:
    """Write a title in one line and a quiet subtitle of up to `max_lines` below it, cut to `width_in`."""
    heading = fit_text(title, width_in=width_in, max_lines=1, size=TITLE_PT, bold=True)
    add_text(figure, heading, left_in, 0.2, size=TITLE_PT, bold=True)
    note = fit_text(subtitle, width_in=width_in, max_lines=max_lines, size=TEXT_PT)
    add_text(figure, note, left_in, 0.48, color=MUTED)


def plain_axes(axes: Axes) -> None:
    """Leave a plot with two quiet axes and a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=SMALL_PT, labelfontfamily=FAMILY)


def legend_above(axes: Axes, *, width_in: float, num_columns: int) -> None:
    """Name the curves above the axes, where no curve can be; names are cut to what a column of `width_in` holds."""
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        [fit_text(name, width_in=width_in / num_columns - 0.45, max_lines=1, size=SMALL_PT) for name in names],
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=num_columns,
        frameon=False,
        prop=font(SMALL_PT),
        columnspacing=1.4,
        handlelength=1.6,
    )


def text_width_in(text: str, *, size: float, bold: bool = False) -> float:
    """Return how wide a line of text is, in inches."""
    with quiet_about_glyphs():
        width_pt, _, _ = TextToPath().get_text_width_height_descent(drawable(text), font(size, bold=bold), ismath=False)
    return float(width_pt) / 72


def fit_text(text: str, *, width_in: float, max_lines: int, size: float, bold: bool = False) -> str:
    """Return the text wrapped to `width_in`, best at spaces; an ellipsis ends what `max_lines` cannot hold."""

    def longest(line: str, ending: str = "") -> int:
        def width(length: int) -> float:
            return text_width_in(line[:length] + ending, size=size, bold=bold)

        return max(bisect_right(range(1, len(line) + 1), width_in, key=width), 1)

    lines: list[str] = []
    rest = " ".join(text.split())
    while rest:
        count = longest(rest)
        if count < len(rest) and len(lines) == max_lines - 1:
            lines.append(rest[: longest(rest, "…")].rstrip() + "…")
            break
        if count < len(rest) and " " in rest[: count + 1]:
            count = rest.rindex(" ", 0, count + 1)
        lines.append(rest[:count].rstrip())
        rest = rest[count:].lstrip()
    return "\n".join(lines)


def drawable(text: str) -> str:
    """Return text that can be drawn: bytes of a file name that are no letters become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


@contextmanager
def quiet_about_glyphs() -> Iterator[None]:
    """A class name in a script that no installed font has is drawn as boxes, and that is no reason to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@cache
def _families() -> tuple[str, ...]:
    """Return the house font and those installed that hold the scripts it lacks."""
    installed = set(fontManager.get_font_names())
    return (FAMILY, *(name for name in _OTHER_SCRIPTS if name in installed))
