"""Line charts and confusion matrices as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

# With more classes, numbers do not fit into the cells of a matrix.
MOST_NUMBERS = 12


def curves(
    series: Mapping[str, Mapping[int, float]], title: str, unit: str, log: bool = False
) -> bytes:
    """Draw values by iteration.

    Args:
        series: values by iteration, by the name of the line.
        title: title of the chart.
        unit: label of the value axis.
        log: make the value axis logarithmic.

    Returns:
        The content of an SVG file.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(4.8, 3.2), layout='constrained')
    axes = figure.subplots()
    for number, (name, values) in enumerate(series.items()):
        iterations = sorted(values)
        # A line through a single point would be invisible.
        marker = 'o' if len(iterations) < 20 else None
        heights = [values[i] for i in iterations]
        style = '-' if number < 10 else '--'
        axes.plot(iterations, heights, style, marker=marker, ms=4, lw=1.8, label=name)
    axes.set_title(title, fontsize=12, loc='left', fontweight='bold')
    axes.set_xlabel('iteration')
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    if log:
        axes.set_yscale('log')
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
    if len(series) > 1:
        axes.legend(fontsize=9, framealpha=0.7)
    return _svg(figure)


def matrix(values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> bytes:
    """Draw a confusion matrix; colours and numbers are shares of the row.

    Args:
        values: (rows, columns) counts.
        rows: names of the true classes.
        columns: names of the predicted classes.

    Returns:
        The content of an SVG file.
    """
    from matplotlib.figure import Figure

    shares = values / np.maximum(values.sum(1, keepdims=True), 1)
    side = max(4.4, 1.6 + 0.2 * len(rows))
    figure = Figure(figsize=(side, side), layout='constrained')
    axes = figure.subplots()
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel='predicted', ylabel='true')
    if len(rows) <= MOST_NUMBERS:
        for row, column in np.ndindex(values.shape):
            if values[row, column]:
                share = shares[row, column]
                text = f'{100 * share:.0f}' if share >= 0.005 else '<1'
                colour = 'white' if share > 0.5 else 'black'
                axes.text(column, row, text, ha='center', va='center', color=colour, fontsize=9)
    return _svg(figure)


def _svg(figure: object) -> bytes:
    from matplotlib import rc_context

    picture = io.BytesIO()
    # Text stays text, which is smaller and sharp on any screen.
    with rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'lightvit_mm'}):
        figure.savefig(picture, format='svg', metadata={'Date': None})  # type: ignore[attr-defined]
    return picture.getvalue()
