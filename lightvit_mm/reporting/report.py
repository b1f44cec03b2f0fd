"""The page of tools/report.py: everything about one training."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

import lightvit_mm
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.history import History, read_history
from lightvit_mm.engine.whole_files import latest_checkpoint
from lightvit_mm.files import check_output_file, write_whole
from lightvit_mm.reporting import charts, detection
from lightvit_mm.reporting.findings import (
    Table,
    data_url,
    of_classifier,
    of_detector,
    of_segmentor,
    percent,
)
from lightvit_mm.reporting.run_folder import RunFolder, read_run
from lightvit_mm.reporting.validating import Choices, Detections, validate


def write_report(
    work_dir: str | Path,
    out: str | Path | None = None,
    data_root: str | None = None,
    device: str | None = None,
    with_predictions: bool = True,
) -> str:
    """Write the report of a training, finished or not, as one HTML file.

    Args:
        work_dir: work dir of the training.
        out: the file to write; None means ``report.html`` in the work dir.
        data_root: another location of the config's data set.
        device: where to predict; None means a GPU if there is one.
        with_predictions: predict on the validation set with the last complete checkpoint, for the
            results by class, the confusion matrix and the pictures.

    Returns:
        One line that describes the page.

    Raises:
        UserError: there is no run, the data of its config are missing or unusable, or ``out`` is
            something else or cannot be written.
    """
    run = read_run(work_dir)
    file = Path(out) if out else run.path / 'report.html'
    check_output_file(file, '--out', rb'<title>[^<]*: report of a run</title>')
    history = read_history(work_dir)
    config = load_config(str(run.starts[-1].config), data_root=data_root)
    checkpoint = latest_checkpoint(run.path)
    findings, missing = None, _missing(history)
    if not with_predictions:
        missing.append('No results by class and no pictures, because of --no-predictions.')
    elif not config.get('val_dataloader'):
        missing.append('No results by class and no pictures: the config has no validation set.')
    elif checkpoint is None:
        missing.append(
            'No results by class and no pictures yet: they need the first complete checkpoint.'
        )
    else:
        validated = validate(config, checkpoint, device)
        number = len(validated.images)
        if isinstance(validated, Detections):
            findings = of_detector(validated)
        elif isinstance(validated, Choices):
            findings, number = of_classifier(validated), validated.number
        else:
            findings = of_segmentor(validated)
    page = (
        Environment(
            loader=PackageLoader('lightvit_mm.reporting', '.'),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        .get_template('report.html')
        .render(
            name=_name(run),
            version=lightvit_mm.__version__,
            written=datetime.now().isoformat(' ', 'minutes'),
            summary=_summary(run, history, checkpoint),
            missing=missing,
            curves=_curves(history),
            results=_results(history),
            findings=findings,
            environment=run.environment,
            config=run.starts[-1].config.read_text(),
        )
    )
    content = page.encode()
    write_whole(file, content)
    predicted = f', {number} validation images' if findings else ''
    return f'{run.position}{predicted}: report in {file} ({len(content) / 1e6:.1f} MB)'


def _name(run: RunFolder) -> str:
    # The runner saves the config under its own name next to the folders of the starts.
    kept = sorted(run.path.glob('*.py'), key=lambda file: file.stat().st_mtime)
    return kept[-1].stem if kept else run.path.resolve().name


def _missing(history: History) -> list[str]:
    missing = []
    if not history.loss:
        missing.append('No loss yet: nothing has been logged.')
    if not history.metrics:
        missing.append("No validation yet: the log has neither COCO's AP, mIoU nor top-1.")
    return missing


def _summary(run: RunFolder, history: History, checkpoint: str | None) -> dict[str, str]:
    starts = f', starts: {len(run.starts)}' if len(run.starts) > 1 else ''
    summary = {
        'State': 'finished' if run.is_finished else 'not finished, according to the log',
        'Last logged': run.position,
        'Started': f'{run.starts[0].began}{starts}',
        'Last line of the log': f'{run.starts[-1].last}',
        'Time so far': f'{run.duration} h, with validations',
    }
    if run.remaining and not run.is_finished:
        summary['Time left'] = f'{run.remaining} h, as the log estimated'
    if history.time:
        seconds = list(history.time.values())
        waits = np.median(list(history.data_time.values())) if history.data_time else 0
        summary['Time per iteration'] = (
            f'{np.median(seconds):.3f} s (median), {waits:.3f} s of it waiting for images'
        )
    if history.memory:
        on_cpu = run.environment.get('CUDA available') == 'False'
        holder = 'the process' if on_cpu else 'tensors on the GPU'
        summary['Peak memory'] = f'{max(history.memory.values()):,.0f} MB, held by {holder}'
    else:
        summary['Peak memory'] = 'not in the log'
    summary['Checkpoint'] = Path(checkpoint).name if checkpoint else 'none yet'
    return summary


def _curves(history: History) -> dict[str, str]:
    """Charts as data URLs, by their titles."""
    drawn = {}

    def add(series: Mapping[str, Mapping[int, float]], *how: Any) -> None:
        # pycocotools gives -1 if there are no objects of that kind.
        shown = {name: {i: v for i, v in s.items() if v >= 0} for name, s in series.items()}
        shown = {name: values for name, values in shown.items() if values}
        if shown:
            drawn[f'{how[0]} by iteration'] = data_url(charts.curves(shown, *how), 'svg+xml')

    losses = {'total': history.loss}
    if len(history.loss_parts) > 1:
        losses.update(history.loss_parts)
    add(losses, 'Loss', 'loss', _spans_decades(losses))
    add({'learning rate': history.lr}, 'Learning rate', 'learning rate')
    metrics = history.metrics
    for kind, of in (('bbox', 'boxes'), ('segm', 'masks')):
        names = {'AP': f'{kind}_mAP', 'AP50': f'{kind}_mAP_50', 'AP75': f'{kind}_mAP_75'}
        add({n: metrics.get(key, {}) for n, key in names.items()}, f'AP of {of}', 'percent')
        names = {size: f'{kind}_mAP_{size[0]}' for size in detection.SIZES[1:]}
        add({n: metrics.get(k, {}) for n, k in names.items()}, f'AP of {of} by size', 'percent')
    names = {name: name for name in ('mIoU', 'mAcc', 'aAcc')}
    add({n: metrics.get(key, {}) for n, key in names.items()}, 'IoU and accuracy', 'percent')
    names = {name: name for name in ('top1', 'top5')}
    add({n: metrics.get(key, {}) for n, key in names.items()}, 'Accuracy', 'percent')
    add({'whole': history.time, 'waiting for images': history.data_time}, 'Time', 'seconds')
    add({'memory': history.memory}, 'Memory', 'MB')
    return drawn


def _spans_decades(series: Mapping[str, Mapping[int, float]]) -> bool:
    """Whether values need a logarithmic axis, and all are positive."""
    values = [value for of in series.values() for value in of.values()]
    return bool(values) and min(values) > 0 and max(values) > 8 * min(values)


def _results(history: History) -> Table | None:
    """A table of all validations, the last one first."""
    metrics = history.metrics
    if not metrics:
        return None
    iterations = sorted({i for values in metrics.values() for i in values}, reverse=True)
    rows = [
        [f'{i:,}', *(percent(values.get(i, np.nan)) for values in metrics.values())]
        for i in iterations
    ]
    return Table('Validations, in percent', ['iteration', *metrics], rows)
