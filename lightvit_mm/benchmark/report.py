"""Benchmark results as tables, JSON and a chart."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

import lightvit_mm
from lightvit_mm.benchmark.forms import OURS
from lightvit_mm.benchmark.parts import PARTS, REST
from lightvit_mm.benchmark.run import Result, Row
from lightvit_mm.benchmark.whole import WholeResult, WholeRow
from lightvit_mm.errors import UserError
from lightvit_mm.files import check_output_file, whole_file, write_whole
from lightvit_mm.measure.profiling import Operator


def machine(device: str) -> dict[str, Any]:
    """Hardware and versions, on which the figures depend."""
    return {
        'device': torch.cuda.get_device_name(device) if device.startswith('cuda') else _cpu_name(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'lightvit_mm': lightvit_mm.__version__,
        'system': platform.platform(),
    }


def as_table(result: Result) -> Table:
    """The results of one backbone at one size, for the terminal."""
    step = 'training step' if result.train else 'inference'
    ceilings = '; '.join(
        f'{dtype} {c.gflops:.0f} GFLOP/s ({c.product}), copy {c.copy_gb:.1f} GB/s'
        for dtype, c in result.ceilings.items()
    )
    table = Table(
        title=f'{result.backbone}, {step}, input {"x".join(map(str, result.shape))}',
        caption=f'ceilings: {ceilings}' + (f'\n{result.note}' if result.note else ''),
    )
    table.add_column('form')
    for column in (
        'median ms', 'quartiles', 'ratio', '95 %', 'peak MB', 'M params', 'GMACs', 'GFLOP/s',
        'of peak', 'of floor', 'first call s',
    ):  # fmt: skip
        table.add_column(column, justify='right')
    for row in result.rows:
        timing = row.timing
        low, high = timing.interval
        table.add_row(
            row.form + (' *' if row.form == result.baseline else ''),
            f'{1e3 * timing.median:.2f}',
            ' '.join(f'{1e3 * value:.2f}' for value in timing.quartiles),
            f'{timing.ratio:.2f}',
            f'{low:.2f} {high:.2f}',
            '' if row.peak_bytes is None else f'{row.peak_bytes / 1e6:.1f}',
            f'{row.parameters / 1e6:.2f}',
            f'{row.macs / 1e9:.2f}',
            f'{row.gflops:.1f}',
            f'{row.of_peak:.0%}',
            f'{row.of_floor:.0%}',
            '' if row.first_call is None else f'{row.first_call:.1f}',
        )
    return table


def as_whole_table(result: WholeResult) -> Table:
    """The results of whole models at one size, for the terminal."""
    table = Table(
        title=f'whole models, input {"x".join(map(str, result.shape))}',
        caption='\n'.join(result.notes),
    )
    table.add_column('form', min_width=24)
    for column in (
        'median ms', 'quartiles', 'ratio', '95 %', *PARTS, 'post', 'sum', 'boxes', 'M params',
        'GMACs', 'first call s',
    ):  # fmt: skip
        table.add_column(column, justify='right')
    for row in result.rows:
        timing = row.timing
        low, high = timing.interval
        parts = [f'{1e3 * row.parts[part]:.1f}' if row.parts else '' for part in (*PARTS, REST)]
        boxes = '' if row.boxes is None else f'{row.boxes} to '
        table.add_row(
            row.form + (' *' if row.form == result.baseline else ''),
            f'{1e3 * timing.median:.1f}',
            ' '.join(f'{1e3 * value:.1f}' for value in timing.quartiles),
            f'{timing.ratio:.2f}',
            f'{low:.2f} {high:.2f}',
            *parts,
            f'{1e3 * sum(row.parts.values()):.1f}' if row.parts else '',
            '' if row.found is None else f'{boxes}{row.found}',
            f'{row.parameters / 1e6:.2f}',
            f'{row.macs / 1e9:.2f}',
            '' if row.first_call is None else f'{row.first_call:.1f}',
        )
    return table


def operator_table(operators: Sequence[Operator], name: str = '', rows: int = 15) -> Table:
    """The first ``rows`` operators of a profile, for the terminal."""
    table = Table(title=f'{name} operators by their own time'.strip())
    table.add_column('operator')
    for column in ('calls', 'ms', 'share'):
        table.add_column(column, justify='right')
    for each in operators[:rows]:
        table.add_row(each.name, str(each.calls), f'{each.milliseconds:.2f}', f'{each.share:.1%}')
    return table


def mean_ratios(results: Iterable[Result]) -> dict[str, tuple[float, int]]:
    """Geometric mean of the ratios of each of our forms, and the number of results in it.

    Results without another implementation as baseline don't count.
    """
    ratios: dict[str, list[float]] = {}
    for result in results:
        for row in result.rows:
            if row.source == OURS and not result.baseline.startswith(OURS):
                ratios.setdefault(row.form, []).append(row.timing.ratio)
    return {
        form: (math.exp(sum(map(math.log, values)) / len(values)), len(values))
        for form, values in ratios.items()
    }


def write_json(
    file: str, results: Iterable[Result | WholeResult], device: str, command: str
) -> None:
    """Write everything that was measured; times in seconds, memory in bytes.

    Args:
        file: the JSON file, replaced if it exists.
        results: the results of one run.
        device: where they were measured.
        command: the command line of the run.
    """
    content = {
        'command': command,
        'machine': machine(device),
        'results': [
            {
                **dataclasses.asdict(result),
                'rows': [_row(row) for row in result.rows],
            }
            for result in results
        ],
    }
    write_whole(file, json.dumps(content, indent=1) + '\n')


def check_files(json_file: str | None, picture: str | None) -> None:
    """Check that `write_json` and `plot` may and can write their files, before the work begins.

    Raises:
        UserError: one is something else or cannot be written, or the format is unknown.
    """
    if json_file:
        check_output_file(json_file, '--json', rb'\A\{\s*"command": ')
    if picture:
        from matplotlib.figure import Figure

        formats = Figure().canvas.get_supported_filetypes()
        if _format(picture) not in formats:
            raise UserError(f'--plot {picture}: give a suffix of {", ".join(formats)}')
        # matplotlib writes its name into PNG, SVG, PDF and PostScript.
        check_output_file(picture, '--plot', b'[Mm]atplotlib', filter(None, [json_file]))


def exponent(sides: Sequence[float], seconds: Sequence[float]) -> float:
    """The p for which time grows with side^p; 2 means in proportion to the number of pixels.

    It is the slope of a least-squares line through the logarithms.
    """
    return float(np.polyfit(np.log(sides), np.log(seconds), 1)[0])


def plot(file: str, results: Sequence[Result], title: str) -> dict[str, float]:
    """Draw latency over input size: our first form, and timm's baseline as a dashed line.

    Args:
        file: the picture, a PNG unless its suffix is of another format.
        results: at two or more sizes for each backbone.
        title: title of the chart.

    Returns:
        The fitted exponent of each line.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = Figure(figsize=(8, 6), layout='constrained')
    axes = figure.subplots()
    exponents = {}
    for number, name in enumerate(dict.fromkeys(result.backbone for result in results)):
        own = [result for result in results if result.backbone == name]
        # The side of a square with as many pixels.
        sides = [math.sqrt(result.shape[2] * result.shape[3]) for result in own]
        lines = {f'{name}': [result.rows[0].timing.median for result in own]}
        if not any(result.baseline.startswith(OURS) for result in own):
            medians = [{row.form: row.timing.median for row in result.rows} for result in own]
            lines[f'timm {name}'] = [
                median[result.baseline] for median, result in zip(medians, own, strict=True)
            ]
        for style, (label, seconds) in zip(('o-', 'o--'), lines.items(), strict=False):
            exponents[label] = exponent(sides, seconds)
            axes.loglog(
                sides,
                [1e3 * value for value in seconds],
                style,
                color=f'C{number}',
                markersize=4,
                label=f'{label}: side^{exponents[label]:.2f}',
            )
    ticks = sorted({round(math.sqrt(result.shape[2] * result.shape[3])) for result in results})
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel='side of the input in pixels', ylabel='median latency in ms', title=title)
    axes.grid(which='both', alpha=0.3)
    axes.legend()
    form = _format(file)
    with whole_file(file) as part:
        figure.savefig(part, format=form, dpi=120)
    return exponents


def _format(file: str) -> str:
    return Path(file).suffix[1:].lower() or 'png'


def _row(row: Row | WholeRow) -> dict[str, Any]:
    content = dataclasses.asdict(row)
    if isinstance(row, Row):
        content |= {'gflops': row.gflops, 'of_peak': row.of_peak, 'of_floor': row.of_floor}
    return content


def _cpu_name() -> str:
    information = Path('/proc/cpuinfo')
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()
