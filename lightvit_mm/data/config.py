"""Checks that the files a config reads exist, before anything expensive is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightvit_mm.errors import UserError


class MissingDataError(UserError):
    """Files of a data set are not where the config expects them."""


def datasets_of(dataloader: Mapping[str, Any]) -> Iterator[dict]:
    """The configs of the data sets that a dataloader reads, inside any wrappers."""
    waiting = [dataloader.get('dataset')]
    while waiting:
        dataset = waiting.pop()
        if not isinstance(dataset, dict):
            continue
        inner = dataset.get('datasets', dataset.get('dataset'))
        if inner is None:
            yield dataset
        else:
            waiting.extend(inner if isinstance(inner, (list, tuple)) else [inner])


def data_paths(config: Mapping[str, Any]) -> list[str]:
    """Annotation files and folders of images and label maps that a config reads."""
    paths: list[str] = []
    for part in ('train', 'val', 'test'):
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {}):
            paths += _paths(dataset)
        for evaluator in evaluators_of(config.get(f'{part}_evaluator')):
            paths += filter(None, [evaluator.get('ann_file')])
    return paths


def check_data(config: Mapping[str, Any], parts: tuple[str, ...]) -> None:
    """Check that the annotation files and folders of a config's data sets exist.

    Args:
        config: an mmdet or mmseg config.
        parts: which of ``'train'``, ``'val'`` and ``'test'`` will be read.

    Raises:
        MissingDataError: something is missing; the message lists it, and how to get it.
    """
    missing: list[str] = []
    for part in parts:
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {}):
            missing += [path for path in _paths(dataset) if not Path(path).exists()]
        for evaluator in evaluators_of(config.get(f'{part}_evaluator')):
            path = evaluator.get('ann_file')
            if path and not Path(path).exists():
                missing.append(path)
    if missing:
        listed = '\n  '.join(dict.fromkeys(missing))
        hint = config.get('how_to_get_data', '')
        raise MissingDataError(
            f'the data set of this config is not there. Looked for (from {Path.cwd()}):\n  '
            f'{listed}\n{hint}\nIf you have it elsewhere: --data-root DIR '
            '(its layout inside DIR must be that of the paths above).'
        )


def retarget_data(config: dict, data_root: str) -> None:
    """Point every data set and evaluator of a config at another copy of its data, in place."""
    roots = {
        dataset['data_root']
        for part in ('train', 'val', 'test')
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {})
        if dataset.get('data_root')
    }
    new_root = f'{Path(data_root).expanduser()}/'
    for part in ('train', 'val', 'test'):
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {}):
            if dataset.get('data_root'):
                dataset['data_root'] = new_root
        for evaluator in evaluators_of(config.get(f'{part}_evaluator')):
            path = evaluator.get('ann_file')
            for root in sorted(roots, key=len, reverse=True):
                if path and path.startswith(root):
                    evaluator['ann_file'] = new_root + path[len(root) :].lstrip('/')
                    break


def _paths(dataset: Mapping[str, Any]) -> Iterator[str]:
    root = dataset.get('data_root') or ''
    # COCO's box files, label maps and image folders are all given relative to the root.
    for relative in (dataset.get('ann_file'), *(dataset.get('data_prefix') or {}).values()):
        if relative and isinstance(relative, str):
            yield str(Path(root) / relative)


def evaluators_of(evaluator: Any) -> list[dict]:
    """The configs of an evaluator's metrics, given as None, one config or a list."""
    if evaluator is None:
        return []
    return list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]
