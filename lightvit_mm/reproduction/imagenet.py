"""Published top-1 on ImageNet: evaluating the published weights, or training the networks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from lightvit_mm.carried import TOOLS
from lightvit_mm.checkpoints.weights import WEIGHTS, Weights
from lightvit_mm.engine.history import read_history
from lightvit_mm.errors import UserError
from lightvit_mm.files import check_output_file, write_whole
from lightvit_mm.reproduction.calling import call, evaluated_metrics, launcher
from lightvit_mm.reproduction.record import last_checkpoint

__all__ = ['Accuracy', 'check_weights', 'evaluations', 'reproduce_imagenet', 'trainings']

RESULT = 'top1.json'  # in the folder of a row, once it is finished
PAGE = 'imagenet.md'
TITLE = '# Top-1 on ImageNet'
# Percentage points: the same network on the same images, and about the spread of trainings.
EVALUATION_TOLERANCE, TRAINING_TOLERANCE = 0.1, 0.3


@dataclass(frozen=True)
class Accuracy:
    """A published top-1.

    Attributes:
        name: of the row.
        config: name of our config, without ``.py``.
        published: in percent.
        source: who published it.
        weights: address of the weights to evaluate; None for a training.
    """

    name: str
    config: str
    published: float
    source: str
    weights: str | None = None

    @property
    def tolerance(self) -> float:
        """Largest difference in percentage points."""
        return EVALUATION_TOLERANCE if self.weights else TRAINING_TOLERANCE


def evaluations() -> list[Accuracy]:
    """A row for each of the published weights whose publisher states a top-1."""
    return [_evaluation(weights) for weights in WEIGHTS if weights.top1 is not None]


def trainings() -> list[Accuracy]:
    """A row for each network whose accuracy after its authors' 300 epochs is published."""
    rows = {}
    for weights in WEIGHTS:
        published = weights.paper_top1 or weights.top1
        if published is None or '450e' in weights.tag or weights.model in rows:
            continue
        taught = '_distill' if weights.model.startswith('repvit_') else ''
        config = f'{weights.model}_in1k{taught}'
        source = 'the paper' if weights.paper_top1 else weights.release.source
        rows[weights.model] = Accuracy(config, config, published, source)
    return list(rows.values())


def reproduce_imagenet(
    data_root: str,
    folder: Path,
    patterns: Sequence[str] = (),
    gpus: int = 1,
    evaluate: bool = False,
    cfg_options: Sequence[str] = (),
) -> list[str]:
    """Evaluate or train rows one after the other, and write their table into ``folder``.

    Finished rows are not run again, and an unfinished training resumes.

    Args:
        data_root: folder of ImageNet, see docs/pretrain.md.
        folder: output folder, with a folder for each row.
        patterns: shell-style patterns of names of rows; all without.
        gpus: number of processes.
        evaluate: the published weights, instead of training.
        cfg_options: changes to the config of every row, ``KEY=VALUE``.

    Returns:
        Messages of the rows that failed or are outside the tolerance.

    Raises:
        UserError: a pattern matches no row, or ``folder`` cannot be written.
    """
    rows = evaluations() if evaluate else trainings()
    for pattern in patterns:
        if not any(fnmatch(row.name, pattern) for row in rows):
            known = '\n  '.join(row.name for row in rows)
            raise UserError(f'no row matches {pattern!r}; there are\n  {known}')
    rows = [row for row in rows if not patterns or any(fnmatch(row.name, p) for p in patterns)]
    check_output_file(folder / PAGE, '--work-dir', TITLE.encode())
    failures = []
    for number, row in enumerate(rows, 1):
        print(f'[{number}/{len(rows)}] {row.name}', flush=True)
        try:
            top1 = _measure(row, data_root, folder, gpus, cfg_options)
        except UserError as error:
            failures.append(f'{row.name}: {error}')
            continue
        if problem := _verdict(row, top1):
            failures.append(problem)
        write_whole(folder / PAGE, _page(folder))
    print(f'report: {folder / PAGE}')
    return failures


def check_weights(weights: Weights, data_root: str, folder: Path, gpus: int = 1) -> None:
    """Evaluate the weights that a detector or segmentor starts from, before it is trained.

    Raises:
        UserError: their top-1 is not the published one.
    """
    if weights.top1 is None:
        print(f'{weights.name}: its publisher states no top-1 to compare with', flush=True)
        return
    row = _evaluation(weights)
    problem = _verdict(row, _measure(row, data_root, folder, gpus))
    write_whole(folder / PAGE, _page(folder))
    if problem:
        raise UserError(f'the weights to start from are not as published: {problem}')


def _evaluation(weights: Weights) -> Accuracy:
    assert weights.top1 is not None
    source = weights.release.source
    config = f'{weights.model}_in1k'
    return Accuracy(weights.name, config, weights.top1, source, weights.address)


def _measure(
    row: Accuracy, data_root: str, folder: Path, gpus: int, cfg_options: Sequence[str] = ()
) -> float:
    """Top-1 of a row in percent; of a training, that of the best epoch."""
    work_dir = folder / row.name
    result = work_dir / RESULT
    if result.is_file():
        print('finished before, not run again; to run it again, remove', work_dir, flush=True)
        return float(json.loads(result.read_text())['top1'])
    arguments = ['--data-root', data_root, '--work-dir', str(work_dir)]
    arguments += ['--launcher', 'pytorch'] if gpus > 1 else []
    arguments += ['--cfg-options', *cfg_options] if cfg_options else []
    config = f'configs/{row.config}.py'
    if row.weights:
        call([*launcher(gpus), str(TOOLS / 'test.py'), config, row.weights, *arguments])
        top1 = evaluated_metrics(work_dir).get('top1')
    else:
        more = ['--resume'] if last_checkpoint(work_dir) else []
        more += [] if 'mobilevit' in row.config else ['--auto-scale-lr']
        call([*launcher(gpus), str(TOOLS / 'train.py'), config, *more, *arguments])
        top1 = max(read_history(work_dir).metrics.get('top1', {}).values(), default=None)
    if top1 is None:
        raise UserError(f'top-1 was not measured; see the log in {work_dir}')
    content = {**asdict(row), 'top1': top1, 'cfg_options': list(cfg_options)}
    write_whole(result, json.dumps(content, indent=1))
    return top1


def _verdict(row: Accuracy, top1: float) -> str:
    """What is wrong with a result; empty if it is inside the tolerance."""
    if abs(top1 - row.published) <= row.tolerance + 1e-9:
        return ''
    return (
        f'{row.name}: top-1 {top1:.2f}, published {row.published} ({row.source}), more than '
        f'{row.tolerance} apart'
    )


def _page(folder: Path) -> str:
    lines = [
        TITLE,
        '',
        '| row | weights | published | ours | difference | tolerance |',
        '|---|---|---|---|---|---|',
        *_lines(folder),
        '',
        'In percent; of trainings, the best epoch. \\* with changes to the config. Written by '
        'tools/reproduce.py.',
    ]
    return '\n'.join(lines) + '\n'


def _lines(folder: Path) -> Iterator[str]:
    for row in (*evaluations(), *trainings()):
        result = folder / row.name / RESULT
        if not result.is_file():
            continue
        content = json.loads(result.read_text())
        difference = content['top1'] - row.published
        inside = 'OUTSIDE' if _verdict(row, content['top1']) else 'inside'
        cells = (
            row.name + (' \\*' if content['cfg_options'] else ''),
            'published' if row.weights else 'trained here',
            f'{row.published} ({row.source})',
            f'{content["top1"]:.2f}',
            f'{difference:+.2f}',
            f'{inside} {row.tolerance}',
        )
        yield f'| {" | ".join(cells)} |'
