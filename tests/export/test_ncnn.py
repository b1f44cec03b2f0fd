"""ncnn files."""

import json

import mmcv
import pytest
from helpers.detectors import random_detector, save_detector
from helpers.repository import REPOSITORY
from helpers.variants import MINIATURES, randomise_vectors
from torch import nn

pytest.importorskip('ncnn', reason='not installed: pip install -e ".[ncnn]"')
pytest.importorskip('pnnx', reason='not installed: pip install -e ".[ncnn]"')

from lightvit_mm.backbones import EfficientViT, MobileViT, ShuffleSwin, ShuffleT2TViT
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.predicting import predict
from lightvit_mm.errors import UserError
from lightvit_mm.export.exporting import export, export_subject
from lightvit_mm.export.subject import Subject
from lightvit_mm.runtimes.session import open_file

LIGHT = str(REPOSITORY / 'configs/light_edgevit_xxs_shapes.py')


def test_a_detector(shapes, tmp_path):
    image = str(sorted((shapes / 'images/val').glob('*.png'))[0])
    detector = random_detector(load_config(LIGHT))
    checkpoint = save_detector(detector, tmp_path / 'epoch_1.pth')
    out = tmp_path / 'made/model.ncnn.param'
    made = export(load_config(LIGHT), checkpoint, str(out), (128, 128), images=[image])
    assert made.deviation < 1e-4
    assert made.checked[1].detections > 20
    beside = ['model.ncnn.bin', 'model.ncnn.json', 'model.ncnn.param']
    assert sorted(file.name for file in out.parent.iterdir()) == beside
    assert open_file(out).metadata['task'] == 'detection'
    found = []
    for weights in (checkpoint, str(out)):
        done = predict(load_config(LIGHT), weights, image, str(tmp_path / 'out'))
        (entry,) = json.loads(done.json_file.read_text())['images']
        found.append(entry['detections'])
    assert len(found[0]) == len(found[1]) > 20
    for ours, theirs in zip(*found, strict=True):
        assert ours['class'] == theirs['class']
        assert ours['score'] == pytest.approx(theirs['score'], abs=1e-4)
        assert ours['box_xyxy'] == pytest.approx(theirs['box_xyxy'], abs=0.06)
    out.with_suffix('.bin').write_bytes(b'')
    with pytest.raises(UserError, match=r'model\.ncnn\.param is not a file that ncnn can run'):
        open_file(out).run(mmcv.imread(image).transpose(2, 0, 1)[None].astype('float32'))


class Windows(nn.Module):
    """An operator of rank 6."""

    def forward(self, x):
        return x.reshape(1, 3, 2, 4, 2, 4).permute(0, 1, 2, 4, 3, 5)


def test_what_ncnn_lacks_is_refused(tmp_path):
    subject = Subject(Windows(), ['map'], (8, 8))
    with pytest.raises(UserError, match=r'(?s)layer Tensor.reshape not .* operator that ncnn'):
        export_subject(subject, tmp_path / 'model.ncnn.param')
    assert list(tmp_path.iterdir()) == []


class Backbones(nn.Module):
    """Several backbones of random weights, folded, and all their levels in one tuple."""

    def __init__(self, families):
        super().__init__()
        self.backbones = nn.ModuleList(family(MINIATURES[family]).eval() for family in families)
        for backbone in self.backbones:
            randomise_vectors(backbone)
            backbone.switch_to_deploy()

    def forward(self, x):
        return tuple(level for backbone in self.backbones for level in backbone(x))


# EdgeViT is in the detector above; RepViT is convolutions, and ShuffleDeiT a part of ShuffleT2TViT.
def test_other_families(tmp_path):
    backbones = Backbones([MobileViT, EfficientViT, ShuffleSwin, ShuffleT2TViT]).eval()
    names = [f'level{i}' for i in range(4 + 3 + 4 + 4)]
    # The sides are not multiples of strides and windows.
    done = export_subject(Subject(backbones, names, (68, 150)), tmp_path / 'backbone.ncnn.param')
    assert done.outputs == names
    assert done.deviation < 1e-4


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(3, 4, 3, 2**i, 1) for i in range(12))

    def forward(self, x):
        return tuple(stage(x) for stage in self.stages)


def test_maps_keep_their_order(tmp_path):
    names = [f'level{i}' for i in range(12)]
    done = export_subject(Subject(Pyramid(), names, (64, 96)), tmp_path / 'pyramid.ncnn.param')
    assert done.outputs == names
    assert done.deviation < 1e-4
