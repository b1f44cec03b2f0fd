"""Small data sets to be spoilt by tests."""

import copy
import json
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from helpers.repository import REPOSITORY
from lightvit_mm.engine.configs import load_config

SIZE = (64, 48)  # width, height
CLASSES = ('disk', 'square', 'triangle', 'star')
ARCH = {'embed_dims': (8, 8, 8, 8), 'depths': (1, 1, 1, 1), 'head_dim': 8}  # of EdgeViT


def pixels(width: int = SIZE[0], height: int = SIZE[1], channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def coco(files: dict[str, tuple[int, int]]) -> dict:
    """Images 1.. of the given names and sizes, each with one object of each class."""
    images, annotations = [], []
    for number, (name, (width, height)) in enumerate(files.items(), 1):
        images.append({'id': number, 'file_name': name, 'width': width, 'height': height})
        for label in range(len(CLASSES)):
            box = [width * label / 8, 0, width / 2, height / 2]
            x, y, w, h = box
            annotation = {
                'id': len(annotations) + 1,
                'image_id': number,
                'category_id': label + 1,
                'bbox': box,
                'area': w * h,
                'iscrowd': 0,
                'segmentation': [[x, y, x + w, y, x + w, y + h]],
            }
            annotations.append(annotation)
    categories = [{'id': number, 'name': name} for number, name in enumerate(CLASSES, 1)]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def write_coco(root: Path, content: dict) -> None:
    """The same images and annotations for training and validation."""
    for part in ('train', 'val'):
        (root / 'annotations').mkdir(parents=True, exist_ok=True)
        (root / f'annotations/instances_{part}.json').write_text(json.dumps(content))


def write_images(root: Path, names: list[str]) -> None:
    for part in ('train', 'val'):
        folder = root / 'images' / part
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.fromarray(pixels()).save(folder / name)


def detector_config(root: Path, masks: bool = False, **options):
    """The config of the embedded data set on another one, without workers."""
    config = load_config(
        str(REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'), options, str(root)
    )
    for part in ('train', 'val', 'test'):
        dataloader = config[f'{part}_dataloader']
        dataloader.update(num_workers=0, persistent_workers=False)
        if masks:
            dataloader.dataset.pipeline = copy.deepcopy(dataloader.dataset.pipeline)
            for transform in dataloader.dataset.pipeline:
                if transform.type == 'LoadAnnotations':
                    transform.with_mask = True
    return config


def tiny_detector(root: Path, tmp_path: Path, **options):
    """`detector_config` with 8 channels everywhere, working in a folder of its own."""
    config = detector_config(root, **options)
    config.work_dir = str(tmp_path / 'work')
    config.model.backbone.arch = ARCH
    config.model.neck.update(in_channels=[8] * 4, out_channels=8)
    config.model.bbox_head.update(in_channels=8, feat_channels=8)
    return config


def save_checkpoint(config, file: Path) -> str:
    """Untrained weights of a config's model, as a training would save them."""
    torch.manual_seed(0)
    init_default_scope(config.default_scope)
    dataset = config.test_dataloader.dataset
    classes = (dataset.get('metainfo') or {}).get('classes', CLASSES)
    meta = {'dataset_meta': {'classes': classes, 'palette': [(0, 0, 255)] * len(classes)}}
    state = MODELS.build(copy.deepcopy(config.model)).state_dict()
    torch.save({'state_dict': state, 'meta': meta}, file)
    return str(file)


def segmentor_config(root: Path, **options):
    """Semantic FPN on ``images`` and ``labels`` of five classes, from random weights."""
    config = load_config(
        str(REPOSITORY / 'configs/semantic_fpn_edgevit_xxs_ade20k.py'), options, str(root)
    )
    config.model.decode_head.num_classes = 5
    config.model.backbone.init_cfg = None
    for part in ('train', 'val', 'test'):
        dataset = config[f'{part}_dataloader'].dataset
        dataset.update(
            type='BaseSegDataset',
            img_suffix='.png',
            data_prefix={'img_path': 'images', 'seg_map_path': 'labels'},
            metainfo={'classes': ('a', 'b', 'c', 'd', 'e')},
            pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}],
        )
    return config
