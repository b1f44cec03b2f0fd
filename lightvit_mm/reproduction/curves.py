"""Charts of our loss and metrics together with the published ones."""

from __future__ import annotations

from pathlib import Path

from lightvit_mm.engine.history import History
from lightvit_mm.files import whole_file
from lightvit_mm.reproduction.published import Row

# If ours is shorter than this share of the published training, a linear axis would show a point.
SHORT = 0.2


def draw(row: Row, history: History, batch: int, file: Path) -> None:
    """Draw both trainings over the number of images seen, which allows different batch sizes.

    Args:
        row: the published result.
        history: our training.
        batch: number of images per iteration of ours.
        file: the PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    published = row.iterations * row.recipe.batch
    figure = Figure(figsize=(12, 4.5), layout='constrained')
    losses, metrics = figure.subplots(1, 2)
    losses.plot(*_points(history.loss, batch), label='ours')
    if 'loss' in row.curves:
        losses.plot(*_points(row.curves['loss'], row.recipe.batch), 'k--', label='published')
    losses.set(ylabel='loss', xscale='log', yscale='log')
    losses.yaxis.set_major_formatter(ScalarFormatter())
    losses.yaxis.set_minor_formatter(ScalarFormatter())
    for number, (metric, value) in enumerate(row.published.items()):
        colour = f'C{number}'
        if metric in history.metrics:
            points = _points(history.metrics[metric], batch)
            metrics.plot(*points, f'{colour}o-', label=f'{metric}, ours')
        if metric in row.curves:
            points = _points(row.curves[metric], row.recipe.batch)
            metrics.plot(*points, f'{colour}--', label=f'{metric}, published')
        metrics.plot(published, value, f'{colour}*', ms=12, label=f'{metric}, published result')
    short = history.iterations * batch < SHORT * published
    metrics.set(ylabel='percent', xscale='log' if short else 'linear')
    for axes in (losses, metrics):
        axes.set(xlabel='images seen')
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(row.config)
    with whole_file(file, shared=True) as part:
        figure.savefig(part, format='png', dpi=100)


def _points(values: dict[int, float], batch: int) -> tuple[list[int], list[float]]:
    iterations = sorted(values)
    return [i * batch for i in iterations], [values[i] for i in iterations]
