"""Running an exported file in place of its PyTorch model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from torch import nn

from lightvit_mm.data.config import resize_scale
from lightvit_mm.errors import UserError
from lightvit_mm.registry import MODELS
from lightvit_mm.runtimes.images import fit_image, padding_of
from lightvit_mm.runtimes.session import DYNAMIC_MULTIPLE, Size, open_file, suffix_of

__all__ = ['ExportedModel', 'fit_pipeline', 'is_exported', 'load_exported', 'use_exported']


def is_exported(checkpoint: str) -> bool:
    """Whether the name of a checkpoint is that of an exported file."""
    return suffix_of(checkpoint) is not None


@MODELS.register_module()
class ExportedModel(nn.Module):
    """A whole detector or segmentor in its runtime, with the interface of mmengine models.

    Its input comes from the config's test pipeline (see `use_exported`). As in OpenMMLab, an image
    smaller than the file's input is padded on the right and bottom; a larger one is shrunk. Results
    are in pixels of the image on disk.

    Args:
        file: file written by tools/export.py.
        settings: ``model`` of the config.
        padding: colour of the padding, blue, green and red; None means the mean colour.

    Raises:
        UserError: the file is missing, its runtime cannot read it, or it is for another task.
    """

    def __init__(
        self, file: str, settings: dict[str, Any], padding: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.session = open_file(file)
        made = self.session.metadata
        kind = 'segmentation' if 'decode_head' in settings else 'detection'
        if made.get('task') != kind:
            given = f'a {made["task"]} file' if 'task' in made else 'not a file of tools/export.py'
            raise UserError(
                f'{file} is {given}, and the config is one for {kind}: give a file that '
                'tools/export.py wrote with this config (without --backbone-only)'
            )
        self.file = file
        palette = made['palette']
        if isinstance(palette, list):
            # JSON has no tuples, and mmengine accepts only tuples as colours.
            palette = [tuple(colour) for colour in palette]
        self.dataset_meta = {'classes': tuple(made['classes']), 'palette': palette}
        self.settings = settings
        mean = padding_of(settings.get('data_preprocessor') or {})
        self.padding = mean if padding is None else np.array(padding, 'float32')
        # inference_detector reads the device from it.
        self.data_preprocessor = BaseDataPreprocessor()

    def test_step(self, data: dict[str, Any]) -> list[Any]:
        """Predict a batch.

        Args:
            data: ``inputs``, a list of (3, H, W) BGR images, and their ``data_samples``.

        Returns:
            The samples with ``pred_instances`` or ``pred_sem_seg`` added.
        """
        pairs = zip(data['inputs'], data['data_samples'], strict=True)
        return [self._predict(image.numpy().transpose(1, 2, 0), sample) for image, sample in pairs]

    def _predict(self, image: np.ndarray, sample: Any) -> Any:
        size = self.session.size or _rounded_up(image.shape[:2])
        inputs, (height, width) = fit_image(image, size, self.padding)
        outputs = self.session.run(inputs)
        made = {name: torch.from_numpy(value) for name, value in outputs.items()}
        if 'logits' in made:
            if made['logits'].shape[1] == 1:
                raise UserError(
                    f'{self.file}: a segmentor with a single output channel is not supported'
                )
            return self._segmented(sample, made['logits'][:, :, :height, :width])
        made['boxes'][:, 0::2].clamp_(0, width)
        made['boxes'][:, 1::2].clamp_(0, height)
        inside = (made['boxes'][:, :2] < made['boxes'][:, 2:]).all(1)  # not only in the padding
        made = {name: values[inside] for name, values in made.items()}
        return self._detected(sample, made, (height, width))

    def _detected(self, sample: Any, made: dict[str, torch.Tensor], size: Size) -> Any:
        shape = sample.ori_shape[:2]
        boxes = made['boxes'] * torch.tensor([shape[1] / size[1], shape[0] / size[0]]).repeat(2)
        found = InstanceData(bboxes=boxes, scores=made['scores'], labels=made['labels'])
        if 'masks' in made:
            found.masks = self._pasted(made['masks'], boxes, shape)
        sample.pred_instances = found
        return sample

    def _pasted(self, masks: torch.Tensor, boxes: torch.Tensor, shape: Size) -> torch.Tensor:
        from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

        threshold = self.settings['test_cfg']['rcnn']['mask_thr_binary']
        pasted = torch.zeros(len(masks), *shape, dtype=torch.bool)
        for whole, mask, box in zip(pasted, masks, boxes, strict=True):
            part, place = _do_paste_mask(mask[None, None], box[None], *shape, skip_empty=True)
            whole[place] = part[0] >= threshold
        return pasted

    def _segmented(self, sample: Any, logits: torch.Tensor) -> Any:
        from mmseg.models.utils import resize

        logits = resize(
            logits,
            size=sample.ori_shape[:2],
            mode='bilinear',
            align_corners=self.settings['decode_head'].get('align_corners', False),
            warning=False,
        )
        sample.seg_logits = PixelData(data=logits[0])
        sample.pred_sem_seg = PixelData(data=logits.argmax(1))
        return sample


def use_exported(config: Config, file: str) -> None:
    """Replace the model of a config with an exported file, and adapt the test pipelines, in place.

    Raises:
        UserError: see `ExportedModel`.
    """
    size = open_file(file).size
    config.model = {'type': 'ExportedModel', 'file': file, 'settings': config.model.to_dict()}
    # An exported model has no weights to average.
    config.custom_hooks = [h for h in config.get('custom_hooks', []) if h.type != 'EMAHook']
    pipelines = [config.test_dataloader.dataset.pipeline, config.get('test_pipeline', [])]
    for pipeline in pipelines:
        colour = fit_pipeline(pipeline, size)
        if colour is not None:
            config.model.padding = colour


def fit_pipeline(pipeline: list[Any], size: Size | None) -> list[float] | None:
    """Adapt a test pipeline to a file, in place.

    If the file has a fixed input size, every Resize gets that size as its scale, except those that
    keep the aspect ratio and whose scale already fits. A Pad is left to the model.

    Args:
        pipeline: the steps.
        size: height and width of the file's input, None if they are open.

    Returns:
        The colour of the Pad, None without one.
    """
    colour = None
    for step in [step for step in pipeline if step['type'] == 'Pad']:
        pipeline.remove(step)
        colour = _colour(step.get('pad_val', 0))
    if size is None:
        return colour
    for step in pipeline:
        scale = resize_scale(step) if step['type'] == 'Resize' else None
        if scale is not None:
            fits = max(scale) <= max(size) and min(scale) <= min(size)
            step['scale'] = scale if step.get('keep_ratio', False) and fits else size[::-1]
    return colour


def load_exported(config: Config, file: str) -> ExportedModel:
    """Load an exported file for mmdet's and mmseg's inference functions.

    Args:
        config: config that the file was exported with; changed in place, see `use_exported`.
        file: file written by tools/export.py.

    Raises:
        UserError: see `ExportedModel`.
    """
    init_default_scope(config.default_scope)
    use_exported(config, file)
    model = MODELS.build(config.model)
    model.cfg = config
    return model


def _colour(pad_val: Any) -> list[float]:
    """The colour of a Pad, which is given for images alone or as one number for everything."""
    value = pad_val.get('img', 0) if isinstance(pad_val, dict) else pad_val
    return list(value) if isinstance(value, (list, tuple)) else [value] * 3


def _rounded_up(shape: tuple[int, ...]) -> Size:
    height, width = (-(-side // DYNAMIC_MULTIPLE) * DYNAMIC_MULTIPLE for side in shape)
    return height, width
