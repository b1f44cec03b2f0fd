"""Checks of the data sets of a config, for tools/check_data.py and for the start of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lightvit_mm.commands import as_typed_here
from lightvit_mm.data.class_folders import ClassFolderChecks
from lightvit_mm.data.coco_checks import CocoContent, CocoUse, check_coco
from lightvit_mm.data.coco_file import read_coco
from lightvit_mm.data.coco_masks import judge_compressed_mask, reads_polygons_only
from lightvit_mm.data.config import (
    CLASS_FOLDERS,
    check_data,
    class_heads,
    data_paths,
    datasets_of,
    evaluators_of,
)
from lightvit_mm.data.findings import ERROR, NOTE, WARNING, DataError, Finding, Report, count, lines
from lightvit_mm.data.images import Load, judge_resized, judge_size, look_at_image
from lightvit_mm.data.label_maps import LabelMaps, find_partners
from lightvit_mm.files import check_output_file, write_whole

PARTS = ('train', 'val', 'test')


def check_before_run(config: Mapping[str, Any], parts: tuple[str, ...]) -> list[Report]:
    """Refuse data that would stop a run or be misread, judging by annotations and file names.

    Of images and label maps, only a few pairs are opened; `check_everything` opens all. Warnings
    are printed.

    Args:
        config: config of a detector, segmentor or classifier.
        parts: which of `PARTS` will be read.

    Returns:
        A report per data set.

    Raises:
        DataError: a data set cannot be used as it is; the message gives the files and the reasons.
    """
    check_data(config, parts)
    reports = []
    for report, samples in _look_at_annotations(config, parts):
        if isinstance(samples, LabelMaps):
            report.findings += samples.look_at_some()
        reports.append(report)
    command = f'python tools/check_data.py {config.get("filename", "CONFIG")}'
    hint = f'To check everything, images included: {command}'
    if any(count(report.findings, ERROR) for report in reports):
        text = '\n'.join(_describe(report, (ERROR,)) for report in reports if report.findings)
        raise DataError(f'the data cannot be used as they are; nothing was run.\n{text}\n{hint}')
    if any(count(report.findings, WARNING) for report in reports) and _is_first_process():
        text = '\n'.join(_describe(report, (WARNING,)) for report in reports if report.findings)
        text = f'warning: not all of the data will be used as they are.\n{text}\n{hint}'
        print(as_typed_here(text))
    return reports


def check_everything(config: Mapping[str, Any]) -> list[Report]:
    """Check every annotation, image and label map of a config, with progress.

    Returns:
        A report per data set; one shared by two parts appears once.

    Raises:
        MissingDataError: an annotation file or a folder is missing.
    """
    from rich.progress import track

    parts = tuple(part for part in PARTS if config.get(f'{part}_dataloader'))
    check_data(config, parts)
    reports = []
    for report, samples in _look_at_annotations(config, parts):
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            found = pool.map(lambda sample: list(sample()), samples)
            description = f'{report.part}: images'
            for findings in track(found, description, total=len(samples)):
                report.findings += findings
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, the rest would still be checked
        if isinstance(samples, LabelMaps):
            report.findings += samples.judge_classes()
        reports.append(report)
    return reports


def summary(reports: list[Report]) -> str:
    """Describe the reports of `check_everything`, for printing."""
    findings = [finding for report in reports for finding in report.findings]
    errors, warnings = count(findings, ERROR), count(findings, WARNING)
    verdict = f'{errors} errors, {warnings} warnings, {count(findings, NOTE)} notes: '
    if errors:
        verdict += 'training would stop, or learn something other than what the files say'
    elif warnings:
        verdict += 'it can be trained on, but not all of it is used as it is'
    else:
        verdict += 'it can be trained on'
    return '\n'.join([*(_describe(report) for report in reports), verdict])


def _describe(report: Report, severities: tuple[str, ...] = (ERROR, WARNING, NOTE)) -> str:
    findings = [finding for finding in report.findings if finding.severity in severities]
    return '\n'.join([str(report), *lines(findings)])


def _is_first_process() -> bool:
    # The process group does not exist yet.
    return os.environ.get('RANK', '0') == '0'


def _look_at_annotations(
    config: Mapping[str, Any], parts: tuple[str, ...]
) -> Iterator[tuple[Report, list]]:
    """Yield, per data set, a report made without opening images, and the checks that open them."""
    seen: list[Mapping] = []
    class_folders = ClassFolderChecks(config)
    for part in parts:
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {}):
            if dataset in seen:
                continue
            seen.append(dataset)
            if dataset.get('type') == CLASS_FOLDERS:
                yield class_folders.look_at(part, dataset)
            else:
                yield _look_at_data_set(config, part, dataset)


def _look_at_data_set(
    config: Mapping[str, Any], part: str, dataset: Mapping[str, Any]
) -> tuple[Report, list]:
    from mmengine.dataset import BaseDataset
    from mmengine.registry import DATASETS, init_default_scope

    scope = config.get('default_scope', 'mmengine')
    init_default_scope(scope)
    report = Report(part, str(dataset.get('ann_file') or dataset.get('data_root') or ''))
    kind = dataset.get('type')
    found = DATASETS.get(kind) if isinstance(kind, str) else kind
    if isinstance(found, type) and not issubclass(found, BaseDataset):
        _add(report, NOTE, 'type of data set that is not checked', f'{kind}')
        return report, []
    try:
        built = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f'{part}: the data set of type {kind}: {error}') from error
    if not _is_known(built, scope):
        _add(report, NOTE, 'type of data set that is not checked', f'{kind}')
        return report, []
    classes = tuple(built.metainfo.get('classes') or ())
    for name, head in class_heads(config.get('model')):
        # Detectors that read class names as text accept any number of classes.
        if head['num_classes'] != len(classes) and not getattr(built, 'return_classes', False):
            detail = (
                f'{name}.num_classes is {head["num_classes"]}, the data set has {len(classes)} '
                'classes: set both'
            )
            if scope in ('mmdet', 'mmseg'):
                detail += f' (--classes-from {"ANN" if scope == "mmdet" else "FILE"} does it)'
            _add(report, ERROR, 'head for another number of classes', detail)
    if hasattr(built, 'COCOAPI'):
        return report, _look_at_coco(report, built, config, part, dataset, classes)
    return report, _look_at_label_maps(report, built, dataset, classes)


def _is_known(dataset: Any, scope: str) -> bool:
    """Whether it reads COCO files as mmdet's CocoDataset does, or label maps as mmseg's do."""
    if scope == 'mmdet':
        from mmdet.datasets import CocoDataset

        return (
            isinstance(dataset, CocoDataset)
            and type(dataset).load_data_list is CocoDataset.load_data_list
        )
    if scope == 'mmseg':
        from mmseg.datasets import BaseSegDataset

        return isinstance(dataset, BaseSegDataset)
    return False


def _look_at_coco(
    report: Report,
    dataset: Any,
    config: Mapping[str, Any],
    part: str,
    data_config: Mapping[str, Any],
    classes: tuple[str, ...],
) -> list:
    report.source = dataset.ann_file
    filters = {} if dataset.test_mode else dataset.filter_cfg or {}
    evaluators = evaluators_of(config.get(f'{part}_evaluator'))
    use = CocoUse(
        dataset.ann_file,
        dataset.data_prefix.get('img') or '',
        classes,
        with_mask=bool(_transform(data_config, 'LoadAnnotations').get('with_mask'))
        or any('segm' in evaluator.get('metric', ()) for evaluator in evaluators),
        polygons_only=reads_polygons_only(_transform(data_config, 'LoadAnnotations')),
        training=not dataset.test_mode,
        filter_empty=filters.get('filter_empty_gt', False),
        min_size=filters.get('min_size', 0),
    )
    for evaluator in evaluators:
        file = evaluator.get('ann_file')
        if file and os.path.abspath(file) != os.path.abspath(use.file):
            kind = 'evaluation against another annotation file'
            _add(report, WARNING, kind, f'{part}_evaluator.ann_file is {file}')
            other = replace(use, file=file, training=False)
            report.findings += _read_and_check(other, annotated=True).findings
    content = _read_and_check(use, annotated=part != 'test')
    report.counts = {'images': content.num_images, 'annotations': content.num_annotations}
    report.findings += content.findings
    load, resize = _loader(data_config), _transform(data_config, 'Resize')
    return [partial(_look_at_coco_image, use, content, key, load, resize) for key in content.images]


def _read_and_check(use: CocoUse, annotated: bool) -> CocoContent:
    try:
        return check_coco(read_coco(use.file, annotated), use)
    except DataError as error:
        kind = 'annotation file that cannot be read'
        return CocoContent(findings=[Finding(ERROR, kind, use.file, '', str(error))])


def _look_at_coco_image(
    use: CocoUse, content: CocoContent, key: Any, load: Load, resize: Mapping[str, Any]
) -> Iterator[Finding]:
    image = content.images[key]
    path = os.path.join(use.image_folder, image['file_name'])
    if not os.path.exists(path):  # already reported
        return
    seen = look_at_image(path, load)
    size = judge_size(seen, (image['width'], image['height']), load)
    for severity, kind, detail in filter(
        None, [*seen.judgements, judge_resized(seen, resize), size]
    ):
        yield Finding(severity, kind, path, f'image {key}', detail)
    for annotation in content.annotations.get(key, ()) if use.with_mask else ():
        judged = judge_compressed_mask(annotation)
        if judged:
            severity, kind, detail = judged
            yield Finding(severity, kind, use.file, f'annotation {annotation["id"]}', detail)


def _look_at_label_maps(
    report: Report, dataset: Any, data_config: Mapping[str, Any], classes: tuple[str, ...]
) -> list:
    report.source = str(dataset.data_prefix['img_path'])
    try:
        samples = dataset.load_data_list()
    except (OSError, ValueError) as error:
        _add(report, ERROR, 'list of images that cannot be read', f'{dataset.ann_file}: {error}')
        return []
    report.counts = {'images': len(samples)}
    if not samples:
        _add(report, ERROR, 'no image is left', f'no file ending in {dataset.img_suffix}')
    report.findings += find_partners(dataset, samples)
    load_labels = _build(_transform(data_config, 'LoadAnnotations') or {'type': 'LoadAnnotations'})
    return LabelMaps(
        [sample for sample in samples if os.path.exists(sample['img_path'])],
        _loader(data_config),
        load_labels,
        classes,
        dataset.ignore_index,
        report,
    )


def _transform(dataset: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config of the pipeline's transform of that type, in any scope; empty if it has none."""
    for transform in dataset.get('pipeline') or ():
        if isinstance(transform, dict) and str(transform.get('type')).split('.')[-1] == name:
            return dict(transform)
    return {}


def _loader(dataset: Mapping[str, Any]) -> Load:
    return _build(_transform(dataset, 'LoadImageFromFile') or {'type': 'LoadImageFromFile'})


def _build(transform: dict[str, Any]) -> Load:
    from mmengine.registry import TRANSFORMS

    return TRANSFORMS.build(transform)


def _add(report: Report, severity: str, kind: str, detail: str) -> None:
    report.findings.append(Finding(severity, kind, report.source, '', detail))


def check_reports_file(config: Mapping[str, Any], file: str | Path) -> None:
    """Check that `write_reports` may and can write a file, before the work begins.

    Raises:
        UserError: it is something else, or cannot be written.
    """
    files = [path for path in data_paths(config) if not os.path.isdir(path)]
    check_output_file(file, '--out', rb'\A\[(\]\Z|\s*\{\s*"part": )', files)


def write_reports(reports: list[Report], file: str | Path) -> None:
    """Write every finding as JSON."""
    write_whole(file, json.dumps([report.as_dict() for report in reports], indent=1))
