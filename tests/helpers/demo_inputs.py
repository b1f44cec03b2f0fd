"""Random images with annotations, as the data loader of a config would give them."""

import torch
from mmengine.config import Config


def demo_inputs(config: Config) -> dict:
    """Two images of 96 x 128 and what is on them, for the detector or segmentor of ``config``."""
    if config.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        head = config.model.get('bbox_head') or config.model.roi_head.bbox_head
        return demo_mm_inputs(
            2,
            [[3, 96, 128], [3, 80, 128]],
            num_items=[2, 1],
            num_classes=head.num_classes,
            with_mask='roi_head' in config.model or 'loss_mask' in head,
        )
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo={'ori_shape': (96, 128), 'img_shape': (96, 128)})
    num_classes = config.model.decode_head.num_classes
    sample.gt_sem_seg = PixelData(data=torch.randint(0, num_classes, (1, 96, 128)))
    images = [torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8) for _ in range(2)]
    return {'inputs': images, 'data_samples': [sample, sample.clone()]}
