"""Whole detectors, segmentors and classifiers to benchmark, from configs."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from lightvit_mm.benchmark.parts import BoxCount
from lightvit_mm.benchmark.peers import peer_configs
from lightvit_mm.data.config import is_classifier, resize_scale
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.trained_model import deploy_form, load_model, usable_device
from lightvit_mm.errors import UserError
from lightvit_mm.export.modules import Preprocessing
from lightvit_mm.layers.fold import fold_conv_modules
from lightvit_mm.measure.complexity import count_parameters

Size = tuple[int, int]

# Boxes that go into the NMS of a detector with random weights.
CANDIDATES = 1000


@dataclass(frozen=True)
class WholeModel:
    """A detector, segmentor or classifier in deploy form.

    Attributes:
        name: its name in tables.
        config: its config.
        model: the module, in eval mode.
        parameters: number of parameters that inference needs, before folding.
        trained: whether its weights come from a checkpoint.
        peer: whether it is not this package's.
    """

    name: str
    config: Config
    model: Any
    parameters: int
    trained: bool
    peer: bool

    @property
    def is_detector(self) -> bool:
        """Whether it finds boxes."""
        return self.config.default_scope == 'mmdet'

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Settings of the normalisation."""
        return self.config.model.get('data_preprocessor') or {}

    def predict(self, image: torch.Tensor) -> Any:
        """What mmdet or mmseg predict for one image; of a classifier, its logits (1, num_classes).

        Args:
            image: (1, 3, H, W), normalised.
        """
        if is_classifier(self.config):
            with torch.inference_mode():
                return self.model(image)
        size = tuple(image.shape[2:])
        meta = {
            'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'batch_input_shape': size,
            'scale_factor': (1.0, 1.0),
        }  # fmt: skip
        if self.is_detector:
            from mmdet.structures import DetDataSample as Sample
        else:
            from mmseg.structures import SegDataSample as Sample
        with torch.inference_mode():
            return self.model.predict(image, [Sample(metainfo=meta)])[0]


def load_whole(
    file: str, name: str | None = None, checkpoint: str | None = None, device: str = 'cpu'
) -> WholeModel:
    """Build the model of a config and fold it as tools/predict.py does.

    Args:
        file: config file.
        name: name in tables of a model that is not this package's, whose backbone is folded too.
        checkpoint: its weights; random without.
        device: torch device.

    Raises:
        UserError: the config is not that of a detector, segmentor or classifier, or the checkpoint
            does not fit.
    """
    config = load_config(file)
    if config.default_scope not in ('mmdet', 'mmseg') and not is_classifier(config):
        raise UserError(
            f'{file}: whole models are those of mmdet and mmseg and ImageClassifier, default_scope '
            f'is {config.default_scope!r}; measure the backbone with --backbone-only'
        )
    model = _random_model(config)
    parameters = count_parameters(model)
    if getattr(model, 'auxiliary_head', None) is not None:
        parameters -= count_parameters(model.auxiliary_head)
    if checkpoint:
        model = load_model(config, checkpoint, usable_device(device))
    else:
        deploy_form(model.to(device))
    if name:
        fold_conv_modules(model.backbone)
    return WholeModel(
        name or Path(file).stem, config, model, parameters, bool(checkpoint), bool(name)
    )


def whole_tables(files: Iterable[str], sizes: Iterable[Size] | None) -> dict[Size, list[str]]:
    """The config files to measure at each size, those given or each config's own.

    Raises:
        UserError: see `input_size`.
    """
    tables: dict[Size, list[str]] = {}
    for file in dict.fromkeys(files):
        for size in sizes or [input_size(load_config(file))]:
            tables.setdefault(size, []).append(file)
    return tables


def load_peers(scopes: Iterable[str], device: str = 'cpu') -> list[WholeModel]:
    """The peers of detectors, of segmentors, or both, see `peer_configs`."""
    return [
        load_whole(file, name, device=device)
        for scope in dict.fromkeys(scopes)
        for name, file in peer_configs(scope).items()
    ]


def _random_model(config: Config) -> Any:
    init_default_scope(config.default_scope)
    settings = copy.deepcopy(config.model)
    settings.backbone.init_cfg = None  # weights to download
    torch.manual_seed(0)
    model = MODELS.build(settings)
    if hasattr(model, 'bbox_head') and not hasattr(model.bbox_head, 'loss_cls'):
        # mmdet's SSD head, see lightvit_mm.heads.ssdlite_head
        model.bbox_head.loss_cls = None
    return model.eval()


def input_size(config: Config) -> Size:
    """Height and width of the images in a config's test pipeline.

    Those of a classifier are square. With the aspect ratio kept, they depend on the image: for a
    segmentor, this is the size of its training crops; for a detector, the largest, in landscape
    format.

    Raises:
        UserError: the pipeline does not resize images.
    """
    if is_classifier(config):
        side = config.test_dataloader.dataset.transform.input_size
        return side, side
    settings = config.model.get('data_preprocessor') or {}
    pipeline = config.test_dataloader.dataset.pipeline
    scales = [scale for step in pipeline if step.type == 'Resize' if (scale := resize_scale(step))]
    if size := settings.get('size'):
        return size[0], size[1]
    if not scales:
        raise UserError(f'{config.filename}: its test pipeline resizes to no size; give --sizes')
    width, height = scales[-1]
    divisor = settings.get('pad_size_divisor') or 1
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def read_image(file: str | None, size: Size) -> torch.Tensor:
    """An image of that size as OpenCV reads it, (1, 3, H, W) from 0 to 255; random without a file.

    Raises:
        UserError: the file is not an image.
    """
    import mmcv

    if file is None:
        # Smooth patches: noise would look the same everywhere, and all its scores be equal.
        patches = tuple(-(-side // 32) for side in size)
        image = np.random.default_rng(0).integers(0, 256, (*patches, 3), np.uint8)
    elif not Path(file).is_file():
        raise UserError(f'--image {file} does not exist')
    else:
        image = mmcv.imread(file, channel_order='bgr')
    if image is None:
        raise UserError(f'--image {file} is not an image that OpenCV can decode')
    image = mmcv.imresize(image, (size[1], size[0]))
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype('float32'))


def normalised(whole: WholeModel, image: torch.Tensor) -> torch.Tensor:
    """The image (1, 3, H, W) as the model takes it."""
    x = Preprocessing(torch.nn.Identity(), whole.preprocessing)(image)
    # Values up to 255, as YOLOX takes them, would saturate all scores of random weights.
    return x if whole.trained or whole.preprocessing.get('std') else x / 255


def set_candidates(whole: WholeModel, image: torch.Tensor) -> None:
    """Set the score threshold of a detector such that `CANDIDATES` boxes go into its NMS.

    The scores of random weights are all above its own threshold or all below, so that NMS would
    get hundreds of thousands of boxes or none.
    """
    model = whole.model
    two_stages = hasattr(model, 'roi_head')
    # The detector's and the head's are the same object or equal.
    settings = [
        model.roi_head.test_cfg if two_stages else model.bbox_head.test_cfg,
        model.test_cfg.rcnn if two_stages else model.test_cfg,
    ]
    if 'score_thr' not in settings[0]:
        return
    for cfg in settings:
        cfg.score_thr = 0.0
    count = BoxCount()
    with count.watching(model):
        whole.predict(image)
    if count.scores is not None and len(count.scores) > CANDIDATES:
        for cfg in settings:
            cfg.score_thr = float(count.scores.topk(CANDIDATES + 1).values[-1])
