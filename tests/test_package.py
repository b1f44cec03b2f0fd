"""The package itself: what importing it needs."""

import subprocess
import sys

import pytest

import lightvit_mm


def test_import_is_light():
    heavy = ['mmcv.ops', 'mmdet', 'mmseg', 'timm', 'torchvision', 'pycocotools']
    code = (
        'import sys\n'
        # None makes the import of a name fail.
        f'for name in {heavy}: sys.modules[name] = None\n'
        'import lightvit_mm, torch\n'
        'from lightvit_mm.registry import MODELS\n'
        "model = MODELS.build(dict(type='EdgeViT', arch='xxs')).eval()\n"
        'print(len(model(torch.zeros(1, 3, 32, 32))))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == '4'


def test_predictor_is_imported_when_it_is_used():
    assert 'Predictor' in lightvit_mm.__all__
    assert lightvit_mm.Predictor.__module__ == 'lightvit_mm.engine.predictor'
    with pytest.raises(AttributeError, match="'lightvit_mm' has no attribute 'Predictors'"):
        _ = lightvit_mm.Predictors


def test_version():
    assert lightvit_mm.__version__.count('.') == 2
