"""A small data set for classifiers: three colours with noise."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

from helpers.repository import REPOSITORY
from lightvit_mm.data.own import use_own_data
from lightvit_mm.engine.configs import load_config

COLOURS = {'blue': (0, 0, 255), 'green': (0, 200, 0), 'red': (220, 0, 0)}
SIDE = 32


def write_images(root: Path, train: int = 8, val: int = 4) -> Path:
    """``root/{train,val}/<colour>/<number>.png``, each image another."""
    random = np.random.default_rng(0)
    for part, number in (('train', train), ('val', val)):
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for image in range(number):
                noise = random.normal(0, 40, (40, 48, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f'{image}.png')
    return root


def tiny_classifier(data: Path, work: Path, **options) -> Config:
    """EdgeViT's recipe with 8 channels everywhere, without workers, on images of 32 pixels."""
    config = load_config(
        str(REPOSITORY / 'configs/edgevit_xxs_in1k.py'), options, work_dir=str(work)
    )
    use_own_data(config, [str(data / 'train')], [str(data / 'val')])
    config.model.backbone.arch = {
        'embed_dims': (8, 8, 8, 8), 'depths': (1, 1, 1, 1), 'head_dim': 8,
    }  # fmt: skip
    for part in ('train', 'val', 'test'):
        loader = config[f'{part}_dataloader']
        loader.update(batch_size=8, num_workers=0, persistent_workers=False)
        loader.dataset.transform.input_size = SIDE
    config.train_dataloader.sampler = {'type': 'DefaultSampler', 'shuffle': True}
    config.param_scheduler.update(warmup_epochs=0, epochs=3, delay=0)
    config.train_cfg.max_epochs = 3
    config.randomness = {'seed': 0}
    config.log_level = 'ERROR'
    return config
