"""The page and the picture of published accuracy over measured latency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lightvit_mm.backbones.families import FAMILIES
from lightvit_mm.errors import UserError
from lightvit_mm.reproduction.published import Row
from lightvit_mm.reproduction.zoo import DATASETS, HEADS, INPUTS, split_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In the first version of its paper, the name of repvit_m1_1.
SAME = {'repvit_m2'}
METRICS = {'bbox_mAP': 'box AP', 'mIoU': 'mIoU'}
INTRODUCTION = """# Choose a backbone

Written by `python tools/choose.py LATENCY.json`; do not edit. Accuracy is published, in percent,
and not reproduced here; training recipes differ ([model_zoo.md](model_zoo.md) has the sources).
Latency is measured here, for the backbone alone in deploy form, fp32, batch 1, at the head's test
size, by

```bash
{command}
```

on {machine}, {threads} threads. Hollow markers: published accuracy from memory, not verified.

![Published accuracy over measured latency](images/choose.png)

- EfficientViT has a third of the latency of edgevit_xxs and five points of AP less. Its finest
  level has stride 16, and the published detectors add no finer one.
- EdgeViT has the best published accuracy for its latency; but most of the AP figures are recalled,
  and no weights were published, so it has to be pretrained first.
- RepViT comes next, has published weights, and folds to plain convolutions, which suit any runtime.
- MobileViT was published with SSDLite at 320 x 320. The cost of its attention grows with the square
  of the number of pixels: at 800 x 1344, mobilevit_s takes 1.7 times as long as edgevit_s.
- The channel-shuffle networks have no published figures with these heads.

Run `python tools/benchmark.py` on your target machine."""


def latencies(benchmark: Mapping[str, Any]) -> dict[tuple[str, int, int], float]:
    """Milliseconds of our deploy form by variant, height and width.

    Args:
        benchmark: content of the file that ``tools/benchmark.py --json`` writes.

    Raises:
        UserError: it measured training steps, several images at a time, or not fp32.
    """
    found = {}
    for result in benchmark['results']:
        row = result['rows'][0]
        batch, _, height, width = result['shape']
        if result['train'] or batch != 1 or row['dtype'] != 'fp32':
            raise UserError(
                'the latencies must be of inference on one image in fp32: '
                'python tools/benchmark.py BACKBONE... --json LATENCY.json'
            )
        found[result['backbone'], height, width] = 1e3 * row['timing']['median']
    return found


def chosen(
    rows: Iterable[Row], latency: Mapping[tuple[str, int, int], float]
) -> dict[str, list[tuple[Row, str, float]]]:
    """The published rows of each head, with variant and latency, the fastest first.

    Raises:
        UserError: a variant was not measured at the input size of its head.
    """
    groups: dict[str, list[tuple[Row, str, float]]] = {}
    missing = set()
    for row in rows:
        head, family, arch, dataset = split_name(row.config)
        variant = f'{family}_{arch}'
        if dataset == 'voc12aug' or variant in SAME:
            continue
        key = (variant, *(INPUTS.get(head) or INPUTS[dataset]))
        if key in latency:
            groups.setdefault(head, []).append((row, variant, latency[key]))
        else:
            missing.add('{} at {}x{}'.format(*key))
    if missing:
        raise UserError(f'not measured: {", ".join(sorted(missing))}')
    return {head: sorted(found, key=lambda entry: entry[2]) for head, found in groups.items()}


def accuracy(row: Row) -> tuple[str, float]:
    """Name and value, in percent, of the metric to draw for a row."""
    metric = next(metric for metric in METRICS if metric in row.published)
    return METRICS[metric], row.published[metric]


def draw(groups: Mapping[str, list[tuple[Row, str, float]]]) -> Figure:
    """Draw one panel per head, with one line per family."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = Figure(figsize=(11, 8), layout='constrained')
    panels = figure.subplots(2, -(-len(groups) // 2), squeeze=False).flat
    for axes, (head, entries) in zip(panels, groups.items(), strict=False):
        *_, dataset = split_name(entries[0][0].config)
        size = INPUTS.get(head) or INPUTS[dataset]
        for number, family in enumerate(FAMILIES):
            own = [entry for entry in entries if split_name(entry[0].config)[1] == family]
            if not own:
                continue
            colour = f'C{number}'
            milliseconds = [entry[2] for entry in own]
            values = [accuracy(entry[0])[1] for entry in own]
            axes.plot(milliseconds, values, '-', color=colour, alpha=0.4)
            for (row, variant, time), value in zip(own, values, strict=True):
                filled = colour if row.confidence == 'read' else 'white'
                axes.plot(time, value, 'o', color=colour, markerfacecolor=filled)
                # On the upper left for the first family, whose names would overlap others.
                side, shift = ('left', (5, -9)) if number else ('right', (-5, 4))
                axes.annotate(
                    variant,
                    (time, value),
                    xytext=shift,
                    textcoords='offset points',
                    ha=side,
                    fontsize=7,
                )
        axes.set_xscale('log')
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.3, y=0.12)
        low, high = axes.get_xlim()
        ticks = [n * 10**p for p in range(5) for n in (1, 1.5, 2, 3, 5)]
        axes.set_xticks([tick for tick in ticks if low <= tick <= high])
        axes.set(
            title=f'{HEADS[head]}, {DATASETS[dataset]}, {size[0]} x {size[1]}',
            xlabel='latency of the backbone in ms',
            ylabel=f'published {accuracy(entries[0][0])[0]}',
        )
        axes.grid(which='both', alpha=0.3)
    return figure


def as_page(
    groups: Mapping[str, list[tuple[Row, str, float]]], benchmark: Mapping[str, Any]
) -> str:
    """The page in Markdown."""
    machine = benchmark['machine']
    lines = [
        INTRODUCTION.format(
            command=benchmark['command'],
            machine=f'{machine["device"]} ({machine["instructions"]}), torch {machine["torch"]}',
            threads=machine['threads'],
        )
    ]
    for head, entries in groups.items():
        lines += [
            '',
            f'## {HEADS[head]}',
            '',
            '| variant | latency in ms | published |',
            '|---|---|---|',
        ]
        for row, variant, milliseconds in entries:
            metric, value = accuracy(row)
            recalled = ' (*recalled*)' if row.confidence == 'recalled' else ''
            lines.append(f'| {variant} | {milliseconds:.1f} | {metric} {value}{recalled} |')
    return '\n'.join(lines) + '\n'
