"""Training or evaluating published rows one after the other, and resuming where that stopped."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from lightvit_mm.carried import TOOLS
from lightvit_mm.engine.history import read_history
from lightvit_mm.errors import UserError
from lightvit_mm.files import check_output_file
from lightvit_mm.reproduction.calling import call, evaluated_metrics, launcher
from lightvit_mm.reproduction.imagenet import check_weights
from lightvit_mm.reproduction.published import Row
from lightvit_mm.reproduction.record import (
    RELEASED,
    TRAINED,
    Record,
    Run,
    last_checkpoint,
    read_record,
    row_folder,
    write_record,
)
from lightvit_mm.reproduction.report import TITLE, write_report


def reproduce(
    rows: Sequence[Row],
    known: Sequence[Row],
    data_roots: Mapping[str, str],
    folder: Path,
    gpus: int = 1,
    evaluate: bool = False,
    cfg_options: Sequence[str] = (),
    imagenet: str | None = None,
) -> list[str]:
    """Reproduce rows, and report all rows with runs in ``folder``.

    Args:
        rows: the rows to reproduce; those without data, or without a released checkpoint to
            evaluate, are left out.
        known: all rows, for the report.
        data_roots: locations of the data sets, by ``Row.dataset``.
        folder, gpus, evaluate, cfg_options: see `reproduce_row`.
        imagenet: folder of ImageNet, to evaluate the weights that a row starts from before it is
            trained.

    Returns:
        Messages of the rows that failed.

    Raises:
        UserError: no row is left, or ``folder`` cannot be written or has another ``report.md``.
    """
    check_output_file(folder / 'report.md', '--work-dir', TITLE.encode())
    rows = [row for row in rows if row.dataset in data_roots and (row.released or not evaluate)]
    if not rows:
        raise UserError(
            'no row is left: a row needs its data (--coco, --ade, --voc) and, with --evaluate, a '
            'checkpoint that its authors released'
        )
    failures = []
    for number, row in enumerate(rows, 1):
        print(f'[{number}/{len(rows)}] {row.config}', flush=True)
        place = row_folder(row, folder, RELEASED if evaluate else TRAINED)
        try:
            if imagenet and not evaluate:
                check_weights(row.weights, imagenet, folder, gpus)
            reproduce_row(row, data_roots[row.dataset], folder, gpus, evaluate, cfg_options)
        except UserError as error:
            print(f'failed: {error}', file=sys.stderr, flush=True)
            failures.append(f'{row.config}: {error}')
            record = read_record(place)
            record.problem = str(error)
            write_record(place, record)
        # After each row, since a series can take weeks.
        comparisons = write_report(folder, known)
    print(*comparisons, f'report: {folder / "report.md"}', sep='\n')
    return failures


def reproduce_row(
    row: Row,
    data_root: str,
    folder: Path,
    gpus: int = 1,
    evaluate: bool = False,
    cfg_options: Sequence[str] = (),
) -> Record:
    """Train a row, or evaluate its released checkpoint, unless that was done before.

    An unfinished training resumes from its last checkpoint.

    Args:
        row: the row to reproduce.
        data_root: location of the row's data set.
        folder: where everything is written, in one folder per row.
        gpus: number of processes; if this changes the batch size, the learning rate is scaled.
        evaluate: evaluate ``row.released`` instead of training.
        cfg_options: changes to the config, ``KEY=VALUE``.

    Returns:
        The record, with the metrics.

    Raises:
        UserError: the row cannot be run, its run failed, or a published metric was not measured.
    """
    work_dir = row_folder(row, folder, RELEASED if evaluate else TRAINED)
    record = read_record(work_dir)
    if record.metrics:
        print('finished before, not run again; to run it again, remove', work_dir, flush=True)
        if record.runs[-1].cfg_options != list(cfg_options):
            print('  it was run with other --cfg-options, see the report', flush=True)
        return record
    arguments = ['--data-root', data_root, '--work-dir', str(work_dir)]
    arguments += ['--launcher', 'pytorch'] if gpus > 1 else []
    options = ['--cfg-options', *cfg_options] if cfg_options else []
    config, resumed = f'configs/{row.config}.py', None
    if evaluate:
        if row.released is None:
            raise UserError('its authors released no checkpoint to evaluate')
        command = [str(TOOLS / 'test.py'), config, row.released, *arguments, *options]
    else:
        resumed = last_checkpoint(work_dir)
        # tools/train.py refuses to resume from nothing.
        resume = ['--resume'] if resumed else []
        command = [
            str(TOOLS / 'train.py'),
            config,
            '--auto-scale-lr',
            *resume,
            *arguments,
            *options,
        ]
    command = [*launcher(gpus), *command]
    record.runs.append(
        Run(
            datetime.now().isoformat(' ', 'seconds'),
            gpus,
            list(cfg_options),
            command,
            Path(resumed).name if resumed else None,
        )
    )
    record.problem = None
    write_record(work_dir, record)
    call(command)
    metrics = evaluated_metrics(work_dir) if evaluate else read_history(work_dir).final()
    checkpoint = last_checkpoint(work_dir)
    if not evaluate and checkpoint and not set(row.published) <= set(metrics):
        # It stopped before the evaluation of the last checkpoint, which resuming does not repeat.
        call([*launcher(gpus), str(TOOLS / 'test.py'), config, checkpoint, *arguments, *options])
        metrics = evaluated_metrics(work_dir)
    missing = [metric for metric in row.published if metric not in metrics]
    if missing:
        raise UserError(
            f'{", ".join(missing)} not measured. See the log in {work_dir}; COCO has no AP if '
            'nothing was detected'
        )
    record.metrics = metrics
    write_record(work_dir, record)
    return record
