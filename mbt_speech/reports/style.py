"""How every picture looks: colors that the color-blind tell apart, sizes of letters, a faint grid.

Colors are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), without yellow, which is hard to see on white.
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.rcsetup import cycler

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.axis import Axis
from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
GRAYS = ("#666666", "#AAAAAA")
MARKERS = ("o", "^", "s", "D")
DOTS_PER_INCH = 120
LOG_SPAN = 8.0
"""From this ratio of largest to smallest value on, an axis is logarithmic."""

plt.rcParams.update({
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 11,
    "axes.titlesize": 11,
    "figure.titlesize": 13,
    "legend.fontsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLORS),
    "image.cmap": "cividis",
    "lines.linewidth": 1.8,
    "savefig.dpi": DOTS_PER_INCH,
})  # fmt: skip


def color(number: int) -> str:
    """Returns the color of a thing by its number; they begin anew after seven."""
    return COLORS[number % len(COLORS)]


def marker(number: int) -> str:
    """Returns the marker of a thing by its number: another one each time that the colors begin anew."""
    return MARKERS[number // len(COLORS) % len(MARKERS)]


def label_plainly(axis: Axis, subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """Labels a logarithmic axis at multiples (`subs`) of the powers of ten, in plain numbers."""
    axis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(ticker.NullLocator())


def legend_beside(axes, **kwargs) -> None:
    """Puts the legend to the right of the axes."""
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, **kwargs)


def save(figure: Figure, path: Path) -> None:
    """Writes and closes a figure."""
    figure.savefig(path)
    plt.close(figure)
