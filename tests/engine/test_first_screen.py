"""The first screen of a training: what test_running.py, which trains, does not cover."""

import pytest
import yaml
from helpers.repository import REPOSITORY
from torch.utils.data import DataLoader

from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.first_screen import FirstScreenHook
from lightvit_mm.reproduction.schedule import build_runner

METAFILE = yaml.safe_load((REPOSITORY / 'configs/metafile.yml').read_text())
COUNTED = {model['Name']: model['Metadata'] for model in METAFILE['Models']}


def first_screen(runner, listed=0) -> dict[str, str]:
    lines: list[str] = []
    runner.logger.info = lines.append
    FirstScreenHook(listed).before_run(runner)
    return dict(line.split(maxsplit=1) for line in lines[0].splitlines()[1:])


@pytest.mark.parametrize(
    ('name', 'options', 'size', 'expected'),
    [
        (
            'semantic_fpn_repvit_m1_1_ade20k',
            {},
            '512x512',
            {
                'model': 'EncoderDecoder on RepViT m1_1: ',
                'weights': 'backbone from https://github.com/THU-MIG/',
                'schedule': '40000 steps with 1 image each, AdamW with learning rate 0.0002',
            },
        ),
        (
            'mask_rcnn_edgevit_xxs_coco',
            {'load_from': 'coco.pth'},
            '800x1344',
            {
                'model': 'MaskRCNN on EdgeViT xxs: ',
                'weights': 'coco.pth',
                'schedule': '12 epochs of 7 steps with 1 image each, AdamW with',
            },
        ),
    ],
)
def test_models_and_schedules(name, options, size, expected):
    runner = build_runner(load_config(str(REPOSITORY / f'configs/{name}.py'), options), 7)
    said = first_screen(runner)
    for subject, text in expected.items():
        assert said[subject].startswith(text), said[subject]
    counted = COUNTED[name]
    assert said['model'].endswith(
        f'{counted["Parameters"] / 1e6:.2f} M parameters, {counted["GMACs"]:.1f} GMACs at {size}'
    )
    assert said['data'] == '7 images to train'


def test_a_model_that_cannot_be_counted():
    """It may need more than an image; that is no reason not to train it."""
    config = load_config(str(REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'))
    runner = build_runner(config, 1)

    def fail(*_, **__):
        raise RuntimeError('not without data samples')

    runner.model.forward = fail
    assert first_screen(runner)['model'] == 'RetinaNet on EdgeViT xxs: 4.11 M parameters'


class Filtered(list):
    filter_cfg = {'filter_empty_gt': True, 'min_size': 32}


def test_a_busy_machine_and_images_left_out(monkeypatch):
    config = load_config(str(REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'))
    runner = build_runner(config, 7)
    assert first_screen(runner, 9)['data'] == '7 images to train'
    runner.train_loop.dataloader = DataLoader(Filtered(range(7)))
    assert first_screen(runner, 9)['data'] == (
        '7 images to train (2 of 9 images left out by filter_empty_gt=True, min_size=32)'
    )
    assert first_screen(runner, 7)['data'] == '7 images to train'
    monkeypatch.setattr('lightvit_mm.engine.first_screen.usable_cores', lambda: {0, 1})
    for busy, threads, policy, shown in (
        (1.8, 2, None, True),
        (0.1, 2, None, False),
        (1.8, 1, None, False),
        (1.8, 2, 'passive', False),
    ):
        monkeypatch.setattr('lightvit_mm.engine.first_screen.busy_cores', lambda busy=busy: busy)
        monkeypatch.setattr('torch.get_num_threads', lambda threads=threads: threads)
        monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
        if policy:
            monkeypatch.setenv('OMP_WAIT_POLICY', policy)
        said = first_screen(runner)
        assert ('busy' in said) is shown
        if shown:
            assert said['busy'].startswith('other programs use 1.8 of 2 cores')
            assert said['busy'].endswith('OMP_NUM_THREADS=1 or OMP_WAIT_POLICY=passive')
