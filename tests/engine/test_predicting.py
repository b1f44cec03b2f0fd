"""Predictions on files that end early."""

import json

import mmcv
import pytest
import torch
from helpers import small_data
from mmengine.registry import init_default_scope

from lightvit_mm.engine.predicting import predict


def test_an_interrupted_run_keeps_what_it_wrote(small_coco, tmp_path, monkeypatch):
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    config = small_data.tiny_detector(small_coco, tmp_path)
    meta = {'dataset_meta': {'classes': small_data.CLASSES}}
    state = MODELS.build(config.model).state_dict()
    torch.save({'state_dict': state, 'meta': meta}, tmp_path / 'epoch_1.pth')
    out = tmp_path / 'out'
    arguments = (config, str(tmp_path / 'epoch_1.pth'), str(small_coco / 'images/val'), str(out))
    done = predict(*arguments)
    whole = done.json_file.read_text()
    assert len(json.loads(whole)['images']) == len(done.pictures) == 2
    assert not (out / 'predictions.json.part').exists()
    read = mmcv.imread

    def interrupted(file, **options):
        if file.name == 'b.png':
            raise KeyboardInterrupt
        return read(file, **options)

    monkeypatch.setattr(mmcv, 'imread', interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(*arguments)
    assert done.json_file.read_text() == whole
    assert (out / 'predictions.json.part').read_text() == whole[: whole.index(',\n{"file"')]
