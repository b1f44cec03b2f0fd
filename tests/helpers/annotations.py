"""Spoilt COCO annotations: what our check, mmdet and pycocotools make of them."""

import runpy

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, METRICS, init_default_scope

from helpers import small_data
from helpers.repository import REPOSITORY
from lightvit_mm.data.checking import check_everything


def write_and_check(root, content, masks=False, **options):
    small_data.write_coco(root, content)
    config = small_data.detector_config(root, masks, **options)
    return config, check_everything(config)


def mmdet_reads(config, masks=False) -> int:
    """Instances that reach the model as targets, by mmdet's own data set and pipeline."""
    init_default_scope('mmdet')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    targets = [dataset[i]['data_samples'].gt_instances for i in range(len(dataset))]
    assert all(np.isfinite(target.bboxes.numpy()).all() for target in targets)
    if masks:
        assert all(set(np.unique(target.masks.masks)) <= {0, 1} for target in targets)
    return sum(len(target) for target in targets)


def first(content) -> dict:
    return content['annotations'][0]


def set_first(**values):
    return lambda content: first(content).update(values)


def judged(reports, severity, kind) -> bool:
    found = [finding for report in reports for finding in report.findings]
    return any(finding.severity == severity and kind in finding.kind for finding in found)


def evaluate_truth(config) -> float:
    """COCO's metric, by mmdet, of predictions that are the validation data themselves."""
    init_default_scope('mmdet')
    dataset = DATASETS.build({**config.val_dataloader.dataset, 'pipeline': []})
    metric = METRICS.build(config.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        sample = dataset.get_data_info(index)
        instances = sample['instances']
        found = {
            'bboxes': torch.tensor([instance['bbox'] for instance in instances]),
            'labels': torch.tensor([instance['bbox_label'] for instance in instances]),
            'scores': torch.ones(len(instances)),
        }
        size = sample['height'], sample['width']
        metric.process(
            {}, [{'img_id': sample['img_id'], 'ori_shape': size, 'pred_instances': found}]
        )
    return metric.evaluate(len(dataset))['coco/bbox_mAP']


def run_check_data(monkeypatch, *arguments) -> int:
    tool = REPOSITORY / 'tools/check_data.py'
    monkeypatch.setattr('sys.argv', [str(tool), *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tool), run_name='__main__')
    return ended.value.code
