"""Predictions: the files that are read, and files that end early."""

import json

import mmcv
import pytest
import torch
from helpers import small_data
from mmengine.registry import init_default_scope

from lightvit_mm.engine.predicting import find_images, predict
from lightvit_mm.errors import UserError


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


def test_files_left_out_of_a_folder_are_counted(tmp_path, mm_log):
    small_data.write_images(tmp_path, ['a.png'])
    folder = tmp_path / 'images/train'
    assert find_images(str(folder)) == (folder, [folder / 'a.png'])
    assert not mm_log
    for name in ('b.gif', 'c.GIF', 'd.avif', 'e'):
        (folder / name).write_bytes(b'')
    assert find_images(str(folder))[1] == [folder / 'a.png']
    assert mm_log == [
        f'{folder}: left out 4 files, e.g. {folder}/b.gif (2 .gif, 1 .avif, 1 no suffix); of a '
        'folder, .bmp .jpeg .jpg .png .tif .tiff .webp are read'
    ]
    (folder / 'a.png').unlink()
    with pytest.raises(UserError, match=r'no image in .*b\.gif \(2 \.gif, 1 \.avif'):
        find_images(str(folder))
    # By name or by pattern, every file is tried.
    assert find_images(str(folder / 'b.gif'))[1] == [folder / 'b.gif']
    assert find_images(str(folder / '*.gif'))[1] == [folder / 'b.gif']
