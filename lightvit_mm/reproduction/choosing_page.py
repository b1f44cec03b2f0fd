"""The page docs/choose.md and its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightvit_mm.backbones.families import FAMILIES
from lightvit_mm.reproduction.choosing import PEER, Panel, Point
from lightvit_mm.reproduction.zoo import HEADS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Milliseconds an image may take.
DEVICES = {
    'phone or camera, live: 100 ms': 100.0,
    'robot or desktop: 300 ms': 300.0,
    'server, accuracy first': math.inf,
}
PUBLISHED, OWN = 'images/choose_published.png', 'images/choose_own.png'
MARKERS = 'osD^v<>ph*'

INTRODUCTION = """# Choose a config

Written by `python tools/choose.py LATENCY.json`; do not edit. Each cell has our most accurate
config that takes no more time for one image, with its accuracy and the latency of the whole model;
in brackets a model of mmdet or mmseg that is more accurate in that time, if there is one. The time
is that of {machine}, {threads} threads.
Your device takes another, so measure there before you decide."""
MEASURED = """## How the latency was measured

Of the whole model, from the normalised image to boxes or label map: PyTorch, fp32, batch 1, deploy
form, at the config's test size, random weights, score thresholds that let 1000 boxes into NMS.
[performance.md](performance.md) explains the tool. Run it on your device, with `--onnxruntime` and
`--openvino` if you deploy a file:

```bash
{command}
```"""
PUBLISHED_TEXT = """## Published accuracy

In percent, trained by others on the whole data set with the recipes of the papers; not reproduced
here. Training recipes differ, and *recalled* figures (hollow markers) are from memory and not
verified. [model_zoo.md](model_zoo.md) has the sources, `docs/choose.yml` those of mmdet's and
mmseg's own models. Bold: no other model of the table is both as fast and as accurate.

![Published accuracy over measured latency](images/choose_published.png)"""
OWN_TEXT = """## Our own accuracy

In percent, on small sets of real pictures. It says how much a model learns from few pictures in a
given time, and nothing about the data sets above. Bold as above.

![Our accuracy over measured latency](images/choose_own.png)"""


def as_page(
    published: Sequence[Panel], own: Sequence[Panel], benchmarks: Sequence[Mapping[str, Any]]
) -> str:
    """The page in Markdown, which begins with the answer.

    Args:
        published, own: the panels of both pictures.
        benchmarks: where the latencies come from; the machine is that of the first.
    """
    machine = benchmarks[0]['machine']
    name = f'{machine["device"]} ({machine["instructions"]}), torch {machine["torch"]}'
    lines = [INTRODUCTION.format(machine=name, threads=machine['threads']), '']
    lines += [f'| | {" | ".join(DEVICES)} |', f'|---|{"---|" * len(DEVICES)}']
    for kind, panels in (('published', published), ('ours', own)):
        for panel in panels:
            cells = [_answer(panel, limit) for limit in DEVICES.values()]
            lines.append(f'| {panel.title}: {panel.metric}, {kind} | {" | ".join(cells)} |')
    for text, panels in ((PUBLISHED_TEXT, published), (OWN_TEXT, own)):
        if panels:
            lines += ['', text]
        for panel in panels:
            lines += ['', *_section(panel)]
    command = '\n'.join(benchmark['command'] for benchmark in benchmarks)
    return '\n'.join([*lines, '', MEASURED.format(command=command)]) + '\n'


def _answer(panel: Panel, limit: float) -> str:
    best, rival = panel.best(limit), panel.rival(limit)
    ours = f'`{best.model}`: {_figures(best)}' if best else 'none'
    return f'{ours} ({rival.model}: {_figures(rival)})' if rival else ours


def _figures(point: Point) -> str:
    recalled = f' *{point.note}*' if point.note else ''
    return f'{point.accuracy:.1f}{recalled}, {point.milliseconds:.0f} ms'


def _section(panel: Panel) -> list[str]:
    lines = [f'### {panel.title}', '', *([panel.about, ''] if panel.about else [])]
    lines += [f'| model | input | latency in ms | {panel.metric} |', '|---|---|---|---|']
    front = panel.front()
    for point in panel.points:
        name = f'**{point.model}**' if point.model in front else point.model
        size = '{} x {}'.format(*point.size)
        note = f' (*{point.note}*)' if point.note else ''
        lines.append(f'| {name} | {size} | {point.milliseconds:.1f} | {point.accuracy:.1f}{note} |')
    if panel.commands:
        lines += ['', '```bash', *dict.fromkeys(panel.commands.values()), '```']
    return lines


def draw(panels: Sequence[Panel], accuracy: str) -> Figure:
    """Draw the panels: colours are families, markers are heads, and peers are grey.

    Args:
        panels: what to draw.
        accuracy: what kind of accuracy it is, ``published`` or ``our``.
    """
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(7 * columns, 5 * rows), layout='constrained')
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for each, panel in zip(axes, panels, strict=False):
        _draw_panel(each, panel, accuracy)
    for each in axes[len(panels) :]:
        each.set_axis_off()
    return figure


def _draw_panel(axes: Axes, panel: Panel, accuracy: str) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

    series: dict[tuple[str, str], list[Point]] = {}
    for point in panel.points:
        series.setdefault((point.head, point.family), []).append(point)
    for (head, family), points in series.items():
        peer = family == PEER
        colour = 'grey' if peer else f'C{list(FAMILIES).index(family)}'
        marker = 'X' if peer else MARKERS[list(HEADS).index(head) % len(MARKERS)]
        label = 'mmdet, mmseg' if peer else f'{HEADS[head]}, {FAMILIES[family].name}'
        axes.plot(
            [point.milliseconds for point in points],
            [point.accuracy for point in points],
            linestyle='none' if peer else '-',
            color=colour,
            alpha=0.4,
        )
        for number, point in enumerate(points):
            axes.plot(
                point.milliseconds,
                point.accuracy,
                marker,
                color=colour,
                markerfacecolor='white' if point.note else colour,
                label='_' if number else label,
            )
            axes.annotate(
                point.arch.removeprefix('mmdet ').removeprefix('mmseg '),
                (point.milliseconds, point.accuracy),
                xytext=(5, -9),
                textcoords='offset points',
                fontsize=7,
            )
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15, y=0.12)
    low, high = axes.get_xlim()
    ticks = [step * 10**power for power in range(5) for step in (1, 2, 5)]
    if high < 8 * low:
        ticks = list(MaxNLocator(6).tick_values(low, high))
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.set(
        title=panel.title,
        xlabel='latency of the whole model in ms',
        ylabel=f'{accuracy} {panel.metric}',
    )
    axes.grid(which='both', alpha=0.3)
    axes.legend(fontsize=7)
