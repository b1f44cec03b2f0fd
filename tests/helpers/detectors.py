"""Detectors of random weights that find something."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

from helpers.variants import randomise_norms

CLASSES = ('disk', 'square', 'triangle', 'star')
# Options that make a Mask R-CNN of four classes as small as it can be.
SMALL_MASK_RCNN = {
    'model.neck.out_channels': 16,
    'model.rpn_head.in_channels': 16,
    'model.rpn_head.feat_channels': 16,
    'model.roi_head.bbox_roi_extractor.out_channels': 16,
    'model.roi_head.mask_roi_extractor.out_channels': 16,
    'model.roi_head.bbox_head.in_channels': 16,
    'model.roi_head.bbox_head.fc_out_channels': 32,
    'model.roi_head.bbox_head.num_classes': 4,
    'model.roi_head.mask_head.in_channels': 16,
    'model.roi_head.mask_head.conv_out_channels': 16,
    'model.roi_head.mask_head.num_convs': 1,
    'model.roi_head.mask_head.num_classes': 4,
    'model.test_cfg.rpn.max_per_img': 100,
}


def random_detector(config: Config) -> torch.nn.Module:
    """A detector of random weights whose scores and boxes differ from place to place."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model).eval()
    randomise_norms(model)
    # Of the outputs of a layer: the standard deviation, and what is added.
    spreads = {
        'cls': (2.0, 0.0),
        'rtm_reg': (1.0, 2.0),  # distances in strides
        'reg': (0.3, 0.0),
        'conv_logits': (2.0, 0.0),
    }
    for name, layer in model.named_modules():
        name = name.rstrip('.0123456789')
        spread = [value for end, value in spreads.items() if name.endswith(end)]
        if spread and hasattr(layer, 'weight'):
            torch.nn.init.zeros_(layer.bias)

            def rescale(layer, _, output, spread=spread[0]):
                deviation, added = spread
                scale = deviation / output.std()
                layer.weight.mul_(scale)
                layer.bias.add_(added)
                layer.hook.remove()
                return output * scale + added

            layer.hook = layer.register_forward_hook(rescale)
    with torch.no_grad():
        predict(model, torch.randn(1, 3, 64, 96))
    return model


def save_detector(model: torch.nn.Module, file: Path) -> str:
    """Save a detector as a checkpoint of the embedded data set."""
    meta = {'dataset_meta': {'classes': CLASSES, 'palette': [(0, 0, 255)] * 4}}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, file)
    return str(file)


def predict(detector: torch.nn.Module, x: torch.Tensor) -> InstanceData:
    """What mmdet predicts of one normalised image, in pixels of that."""
    from mmdet.structures import DetDataSample

    size = tuple(x.shape[2:])
    meta = {'img_shape': size, 'ori_shape': size, 'scale_factor': (1.0, 1.0)}
    return detector.predict(x, [DetDataSample(metainfo=meta)], rescale=False)[0].pred_instances
