"""The tools with a classifier: train, resume, test, predict, report; a detector from it."""

import json
import pickle

import pytest
import torch
from helpers import class_folders, small_data, timm_reference
from helpers.class_folders import tiny_classifier
from mmengine.registry import MODELS, init_default_scope
from safetensors.torch import save_file

from lightvit_mm.checkpoints import WeightsError
from lightvit_mm.classification.published import readable_names, use_published_input
from lightvit_mm.engine.amp import use_amp
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.predicting import predict
from lightvit_mm.engine.running import test as evaluate
from lightvit_mm.engine.running import train
from lightvit_mm.errors import UserError
from lightvit_mm.reporting.report import write_report


@pytest.fixture(autouse=True)
def _timm(quick_runner):
    timm_reference.import_timm()


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return class_folders.write_images(tmp_path_factory.mktemp('classes'))


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """The work dir of a training of three epochs."""
    work = tmp_path_factory.mktemp('trained')
    timm_reference.import_timm()
    train(tiny_classifier(data, work))
    return work


def weights(work, epoch):
    return torch.load(work / f'epoch_{epoch}.pth', weights_only=False)['state_dict']


def test_a_resumed_training_is_the_same_to_the_bit(data, trained, tmp_path):
    train(tiny_classifier(data, tmp_path), resume=str(trained / 'epoch_1.pth'))
    expected, found = weights(trained, 3), weights(tmp_path, 3)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    # The checkpoints hold no teacher and no normalisation.
    assert {name.split('.')[0] for name in expected} == {'backbone', 'head'}


def test_it_learns(data, trained, tmp_path):
    checkpoint, out = str(trained / 'epoch_3.pth'), tmp_path / 'predictions.pkl'
    metrics = evaluate(tiny_classifier(data, tmp_path), checkpoint, out=str(out))
    assert set(metrics) == {'top1'}  # of three classes, five are all
    found = pickle.loads(out.read_bytes())
    assert len({image['img_path'] for image in found}) == 12
    right = [image['pred_scores'].argmax() == image['gt_label'] for image in found]
    assert 100 * sum(right) / 12 == pytest.approx(metrics['top1'])
    with pytest.raises(UserError, match=r'of a classifier go into a \.pkl file'):
        evaluate(tiny_classifier(data, tmp_path), checkpoint, out=str(tmp_path / 'out'))
    logged = [json.loads(line) for file in trained.glob('*/vis_data/scalars.json')
              for line in file.read_text().splitlines()]  # fmt: skip
    assert [entry['top1'] for entry in logged if 'top1' in entry][-1] == metrics['top1']


@pytest.mark.parametrize('options', [{'show_dir': 'x'}, {'tta': True}], ids=lambda o: next(iter(o)))
def test_options_that_classifiers_do_not_have(data, tmp_path, options):
    with pytest.raises(UserError, match='is for detectors and segmentors'):
        evaluate(tiny_classifier(data, tmp_path), 'weights.pth', **options)


def test_predictions(data, trained, tmp_path):
    config = tiny_classifier(data, tmp_path)
    made = predict(config, str(trained / 'epoch_3.pth'), str(data / 'val'), str(tmp_path / 'out'))
    assert len(made.pictures) == 12
    assert all(picture.is_file() for picture in made.pictures)
    entries = json.loads(made.json_file.read_text())['images']
    for entry in entries:
        assert sorted(found['class'] for found in entry['classes']) == ['blue', 'green', 'red']
        scores = [found['score'] for found in entry['classes']]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)
    right = [entry['classes'][0]['class'] in entry['file'] for entry in entries]
    metrics = evaluate(tiny_classifier(data, tmp_path / 'test'), str(trained / 'epoch_3.pth'))
    assert 100 * sum(right) / 12 == pytest.approx(metrics['top1'])


def test_the_report(trained):
    line = write_report(trained)
    assert '12 validation images' in line
    page = (trained / 'report.html').read_text()
    for text in ('Accuracy by iteration', 'The 6 best images', 'of the true class', '>blue<'):
        assert text in page, text


def test_a_detector_is_trained_from_it(trained, small_coco, tmp_path):
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(trained / 'epoch_3.pth')}
    config = small_data.tiny_detector(
        small_coco, tmp_path, **{'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 5}
    )
    config.model.backbone.update(init_cfg=init_cfg, frozen_stages=4)
    config.log_level = 'ERROR'
    runner = train(config)
    ours = {f'backbone.{name}': value for name, value in runner.model.backbone.state_dict().items()}
    start = weights(trained, 3)
    kept = [name for name in ours if name.startswith('backbone.stages.')]
    assert kept
    assert all(torch.equal(ours[name], start[name]) for name in kept if 'num_batches' not in name)


def test_published_weights_bring_their_input():
    config = load_config('repvit_m1_1_in1k')
    use_published_input(config, 'timm://repvit_m1_1')
    from timm.data import create_transform

    transform = config.test_dataloader.dataset.transform
    resize, crop, *_ = create_transform(**transform).transforms
    assert (resize.size, tuple(crop.size)) == (235, (224, 224))
    config = load_config('mobilevit_xxs_in1k')
    resize, *_ = create_transform(**config.test_dataloader.dataset.transform).transforms
    assert resize.size == 288
    use_published_input(config, 'a/file.pth')
    assert config.model.data_preprocessor.rgb_to_bgr
    use_published_input(config, 'timm://mobilevit_xxs')
    assert not config.model.data_preprocessor.rgb_to_bgr
    assert list(config.model.data_preprocessor.std) == [255.0] * 3


def test_names_of_classes():
    names = readable_names((), 1000)
    assert len(names) == 1000
    assert names[0].startswith('tench')
    assert readable_names(('n01440764', 'cat'), 2) == (names[0], 'cat')


def test_amp_keeps_the_clipping():
    config = load_config('repvit_m0_6_in1k')
    use_amp(config)
    assert config.optim_wrapper.type.endswith('AdaptiveClipOptimWrapper')
    assert config.optim_wrapper.type != 'AdaptiveClipOptimWrapper'
    assert config.optim_wrapper.clip_factor == 0.02


def test_a_teacher(tmp_path):
    timm = timm_reference.import_timm()
    torch.save(timm.create_model('test_resnet', num_classes=3).state_dict(), tmp_path / 'x.pth')
    config = load_config('repvit_m0_6_in1k_distill').model
    config.head.num_classes = 3
    config.backbone.arch = {'embed_dims': (8, 8, 8, 8), 'depths': (1, 1, 1, 1)}
    config.teacher = {'model': 'test_resnet', 'checkpoint': str(tmp_path / 'x.pth')}
    init_default_scope('mmengine')
    model = MODELS.build(config)
    samples = [type('Sample', (), {'gt_label': label}) for label in (0, 1)]
    with pytest.raises(UserError, match='needs a teacher'):
        model.loss(torch.randn(2, 3, 64, 64), samples)
    model.init_weights()
    losses = model.loss(torch.randn(2, 3, 64, 64), samples)
    assert set(losses) == {'loss_label', 'loss_teacher'}
    sum(losses.values()).backward()
    assert model.head.fc_dist.weight.grad.abs().sum() > 0
    assert not any('teacher' in name for name in model.state_dict())
    config.head.distilled = False
    with pytest.raises(ValueError, match=r'needs head\.distilled'):
        MODELS.build(config)


def test_published_weights_are_evaluated_and_trained_further(data, tmp_path, capsys):
    timm = timm_reference.import_timm()
    files = {}
    for number in (3, 5):
        model = timm.create_model('repvit_m0_9', num_classes=number)
        files[number] = str(tmp_path / f'{number}.safetensors')
        save_file(model.state_dict(), files[number])

    def config(**options):
        changed = tiny_classifier(data, tmp_path / 'work', **options)
        changed.model = load_config('repvit_m0_9_in1k').model
        changed.model.head.num_classes = 3
        changed.train_cfg.max_epochs = 1
        changed.log_level = 'INFO'
        return changed

    assert 'top1' in evaluate(config(), files[3])
    assert "head: 6/6 tensors, in the timm's RepViT layout" in capsys.readouterr().out
    with pytest.raises(WeightsError, match=r'head\.fc\.weight: \(5, 384\) in the file'):
        evaluate(config(), files[5])
    runner = train(config(load_from=files[5]))
    assert '2 tensors keep their initial values (head.fc' in capsys.readouterr().out
    assert runner.model.head.fc.weight.shape == (3, 384)


def test_mobilevits_way(data, tmp_path):
    """Several sizes, one for each batch; BGR; the average is evaluated and saved."""
    config = tiny_classifier(data, tmp_path)
    recipe = load_config('mobilevit_xxs_in1k')
    config.model = recipe.model
    config.model.head.num_classes = 3
    config.model.backbone.arch = {
        'stem_dims': 8, 'embed_dims': (8, 8, 8, 8), 'depths': (1, 1, 1, 1),
        'transformer_dims': (8, 8, 8), 'expand_ratio': 2,
    }  # fmt: skip
    config.custom_hooks = recipe.custom_hooks
    config.train_dataloader.update(
        batch_sampler=recipe.train_dataloader.batch_sampler, batch_size=(6, 3), drop_last=False
    )
    config.train_dataloader.dataset.update(sizes=(32, 64))
    config.train_cfg.max_epochs = 1
    runner = train(config)
    assert runner.iter == 24 // 4.5
    sizes = {tuple(batch['inputs'][0].shape[1:]) for batch in runner.train_dataloader}
    assert sizes == {(32, 32), (64, 64)}
    content = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    name = 'head.fc.weight'
    assert torch.equal(content['ema_state_dict'][f'module.{name}'], runner.model.state_dict()[name])
    assert not torch.equal(content['state_dict'][name], runner.model.state_dict()[name])
