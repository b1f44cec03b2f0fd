"""Real training, evaluation and resuming, on a few embedded images."""

import json
import os

import mmcv
import pytest
import torch
from helpers.repository import REPOSITORY, run_tool
from mmengine.config import Config

from lightvit_mm.engine.amp import BFloat16OptimWrapper, use_amp
from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError

pytestmark = pytest.mark.slow

DETECTOR = 'configs/retinanet_edgevit_xxs_shapes.py'
SHORT = [
    # After two epochs no score is above the usual threshold, and there is nothing to evaluate.
    'model.test_cfg.score_thr=0',
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.logger.interval=1',
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
]


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('work')
    done = run_tool(
        'tools/train.py', DETECTOR, '--data-root', shapes, '--work-dir', work_dir,
        '--cfg-options', *SHORT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return work_dir, done.stdout + done.stderr


def test_training_says_what_it_made(trained):
    work_dir, said = trained
    assert (work_dir / 'epoch_2.pth').is_file()
    assert f'trained: checkpoint {work_dir}/epoch_2.pth, log {work_dir}' in said
    assert 'no pretrained weights' in said
    assert 'coco/bbox_mAP' in said


def test_the_first_screen_of_a_training(trained):
    work_dir, said = trained
    first = said[: said.index('Epoch(train)')].splitlines()
    assert len(first) < 15  # a terminal has 24 lines or more
    said_of = dict(line.split(maxsplit=1) for line in first if line[:1].islower())
    assert said_of['config'] == DETECTOR
    assert said_of['data'] == (
        '8 images to train, 4 to validate; 4 classes: disk, square, triangle, star'
    )
    assert said_of['model'] == ('RetinaNet on EdgeViT xxs: 4.11 M parameters, 0.3 GMACs at 128x128')
    assert said_of['weights'] == 'random'
    assert said_of['schedule'] == (
        '2 epochs of 2 steps with 4 images each, AdamW with learning rate 0.001, '
        'validated every 2 epochs'
    )
    assert said_of['results'] == str(work_dir)
    (log,) = work_dir.glob('*/*.log')
    assert {'Config:', 'System environment:'} <= {
        line.rpartition(' - ')[2] for line in log.read_text().splitlines()
    }
    # mmengine's list of initial values, two lines for each of 300 parameters.
    assert 'Initialization information' not in log.read_text()


def test_evaluation_draws_and_keeps(trained, shapes, tmp_path):
    work_dir, _ = trained
    done = run_tool(
        'tools/test.py', DETECTOR, work_dir / 'epoch_2.pth', '--data-root', shapes,
        '--work-dir', tmp_path, '--out', tmp_path / 'kept.pkl', '--show-dir', tmp_path / 'shown',
        '--cfg-options', *SHORT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'kept.pkl').is_file()
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 4
    assert 'coco/bbox_mAP' in done.stdout + done.stderr


def test_tta(trained, shapes, tmp_path):
    work_dir, _ = trained
    options = [o for o in SHORT if not o.startswith('train')]
    done = run_tool(
        'tools/test.py', DETECTOR, work_dir / 'epoch_2.pth', '--data-root', shapes, '--tta',
        '--work-dir', tmp_path, '--cfg-options', *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'coco/bbox_mAP' in done.stdout + done.stderr


def test_resuming(trained, shapes):
    work_dir, _ = trained
    done = run_tool(
        'tools/train.py', DETECTOR, '--data-root', shapes, '--work-dir', work_dir, '--resume',
        '--cfg-options', *SHORT, 'train_cfg.max_epochs=3',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout + done.stderr
    assert 'resumed epoch: 2, iter: 4' in said
    assert f'\nweights   resumed from {work_dir}/epoch_2.pth\n' in said
    assert 'Epoch(train) [3]' in said
    assert 'Epoch(train) [1]' not in said
    assert torch.load(work_dir / 'epoch_3.pth', weights_only=False)['meta']['epoch'] == 3


def test_resuming_from_nothing_is_refused(shapes, tmp_path):
    done = run_tool(
        'tools/train.py', DETECTOR, '--data-root', shapes, '--work-dir', tmp_path, '--resume'
    )
    assert done.returncode == 2
    assert 'there is no whole checkpoint in' in done.stderr
    assert 'Traceback' not in done.stderr


class RunsOnLoad:
    def __reduce__(self):
        return os.system, ('touch was_run',)


def test_no_way_in_for_code(shapes, tmp_path):
    # test_no_way_in.py has the other ways; this is the message on the command line.
    evil = tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'meta': RunsOnLoad()}, evil)
    done = run_tool(
        REPOSITORY / 'tools/train.py', REPOSITORY / DETECTOR, '--data-root', shapes,
        '--resume', evil, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-3000:]
    assert 'refused' in done.stderr
    assert 'system' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'was_run').exists()


def test_missing_data_stops_before_the_model(tmp_path):
    done = run_tool(
        REPOSITORY / 'tools/train.py', REPOSITORY / 'configs/retinanet_edgevit_s_coco.py',
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert '--data-root' in done.stderr
    assert 'Traceback' not in done.stderr
    assert 'EdgeViT' not in done.stdout + done.stderr


def test_config_that_is_not_there(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(FileNotFoundError, match=r'did you mean.*retinanet_edgevit_s_coco'):
        load_config('configs/retinanet_edgevit-s_coco.py')


def test_bfloat16_on_a_cpu(shapes, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('--amp is float16 on this machine')
    done = run_tool(
        'tools/train.py', DETECTOR, '--data-root', shapes, '--work-dir', tmp_path, '--amp',
        '--cfg-options', *SHORT, 'train_cfg.max_epochs=1',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    dumped = Config.fromfile(next(tmp_path.glob('*.py')))
    assert dumped.optim_wrapper.type == 'BFloat16OptimWrapper'


def test_bfloat16_is_for_the_device_of_the_model():
    layer = torch.nn.Linear(1, 1)
    wrapper = BFloat16OptimWrapper(torch.optim.SGD(layer.parameters(), lr=1.0))
    with wrapper.optim_context(layer):
        assert layer(torch.ones(1)).dtype == torch.bfloat16
    # A device that torch refuses by name, and that every machine has.
    with pytest.raises(RuntimeError, match='meta'), wrapper.optim_context(layer.to('meta')):
        pass


def test_amp_says_why_it_cannot():
    if torch.cuda.is_available():
        pytest.skip('--amp is float16 on this machine')
    config = load_config(str(REPOSITORY / 'configs/mask_rcnn_edgevit_xxs_coco.py'))
    with pytest.raises(UserError, match='RoIAlign'):
        use_amp(config)
    config = load_config(str(REPOSITORY / DETECTOR))
    config.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(UserError, match='ApexOptimWrapper'):
        use_amp(config)


def test_prediction_on_files(trained, shapes, tmp_path):
    work_dir, _ = trained
    images = tmp_path / 'images'
    (images / 'deeper').mkdir(parents=True)
    picture = mmcv.imread(next((shapes / 'images/val').glob('*.png')))
    mmcv.imwrite(picture, str(images / 'one.jpg'))
    mmcv.imwrite(picture[:50, :30], str(images / 'deeper/two.png'))
    (images / 'broken.png').write_bytes(b'not an image')
    done = run_tool(
        'tools/predict.py', DETECTOR, work_dir / 'epoch_2.pth', images, '--out', tmp_path / 'out'
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert 'skipped' in done.stderr
    assert 'broken.png' in done.stderr
    content = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(content['images']) == 2
    assert list(content['failed']) == [str(images / 'broken.png')]
    assert (tmp_path / 'out/one.jpg').is_file()
    assert (tmp_path / 'out/deeper/two.png').is_file()
    for image in content['images']:
        for detection in image['detections']:
            assert detection['class'] in ('disk', 'square', 'triangle', 'star')
            assert len(detection['box_xyxy']) == 4
            assert 0 <= detection['score'] <= 1
    done = run_tool(
        'tools/predict.py', DETECTOR, work_dir / 'epoch_2.pth', images / 'no*.png', '--out', 'x'
    )
    assert done.returncode == 2
    assert 'no image in' in done.stderr


def test_segmentation_from_training_to_pictures(shapes, tmp_path):
    options = [
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        'default_hooks.checkpoint.interval=2',
        'crop_size=(64,64)',
        'model.data_preprocessor.size=(64,64)',
        'model.decode_head.num_classes=5',
        'train_dataloader.batch_size=2',
    ]
    for part, folder in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = f'{part}_dataloader.dataset'
        options += [
            f'{part}_dataloader.num_workers=0',
            f'{part}_dataloader.persistent_workers=False',
            f'{dataset}.type=BaseSegDataset',
            f'{dataset}.img_suffix=.png',
            f'{dataset}.metainfo.classes=("background","disk","square","triangle","star")',
            f'{dataset}.data_prefix.img_path=images/{folder}',
            f'{dataset}.data_prefix.seg_map_path=semantic/{folder}',
        ]
    options += [
        'model.backbone.init_cfg=None',
        'train_pipeline.1.reduce_zero_label=False',
        'train_dataloader.dataset.pipeline.1.reduce_zero_label=False',
        'train_dataloader.dataset.pipeline.2.scale=(256,64)',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        'val_dataloader.dataset.pipeline.1.scale=(256,64)',
        'val_dataloader.dataset.pipeline.3.reduce_zero_label=False',
        'test_dataloader.dataset.pipeline.1.scale=(256,64)',
        'test_dataloader.dataset.pipeline.3.reduce_zero_label=False',
    ]
    config = 'configs/semantic_fpn_edgevit_xxs_ade20k.py'
    done = run_tool(
        'tools/train.py', config, '--data-root', shapes, '--work-dir', tmp_path,
        '--cfg-options', *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'mIoU' in done.stdout + done.stderr
    checkpoint = tmp_path / 'iter_2.pth'
    done = run_tool(
        'tools/test.py', config, checkpoint, '--data-root', shapes, '--work-dir', tmp_path,
        '--out', tmp_path / 'labels', '--cfg-options', *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / 'labels').glob('*.png'))) == 4
    done = run_tool(
        'tools/predict.py', config, checkpoint, shapes / 'images/val', '--out', tmp_path / 'out',
        '--cfg-options', *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / 'out/predictions.json').read_text())
    for image in content['images']:
        pixels = sum(segment['pixels'] for segment in image['segments'])
        assert pixels == image['width'] * image['height']
        assert mmcv.imread(image['label_map'], 'unchanged').shape == (
            image['height'],
            image['width'],
        )
