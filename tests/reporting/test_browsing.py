"""The contact sheet shows what the model gets."""

import mmcv
import numpy as np
import pytest
from helpers.small_data import SIZE, detector_config, pixels, segmentor_config
from PIL import Image

from lightvit_mm.errors import UserError
from lightvit_mm.reporting import browsing
from lightvit_mm.reporting.browsing import CELL, browse


@pytest.fixture
def drawn(monkeypatch):
    """The images on a sheet, each with its objects or label map."""
    kept = []
    for name in ('draw_objects', 'draw_labels'):
        draw = getattr(browsing, name)
        monkeypatch.setattr(
            browsing, name, lambda *args, draw=draw: kept.append(args[:2]) or draw(*args)
        )
    return kept


@pytest.mark.parametrize('bgr_to_rgb', [True, False])
def test_augmented_image_and_boxes(small_coco, tmp_path, drawn, bgr_to_rgb):
    config = detector_config(small_coco, masks=True)
    config.model.data_preprocessor.update(bgr_to_rgb=bgr_to_rgb, pad_mask=True)
    for transform in config.train_dataloader.dataset.pipeline:
        if transform.type == 'RandomFlip':
            transform.prob = 1.0
    said = browse(config, tmp_path / 'new/sheet.png', 2)
    assert said.startswith('2 of 2 training images, 64 x 64 px as the model gets them, values ')
    width, height = SIZE
    for image, objects in drawn:
        np.testing.assert_array_equal(image[:height], pixels()[:, ::-1])
        assert objects.boxes[0].tolist() == [width / 2, 0, width, height / 2]
    with Image.open(tmp_path / 'new/sheet.png') as sheet:
        assert sheet.width > 2 * CELL
        cell = np.asarray(sheet.convert('RGB'))[8 : 8 + CELL, 8 : 8 + CELL]
    # The masks are drawn: their pixels differ from the image's.
    own = mmcv.imresize(drawn[0][0], (CELL, CELL), interpolation='bicubic')
    differs = np.abs(cell.astype(int) - own).max(-1) > 60
    assert 0.05 < differs.mean() < 0.6


def test_label_maps(tmp_path, drawn):
    for folder, content in (('images', pixels()), ('labels', np.full(SIZE[::-1], 3, np.uint8))):
        (tmp_path / folder).mkdir()
        Image.fromarray(content).save(tmp_path / folder / 'a.png')
    config = segmentor_config(tmp_path)
    config.train_dataloader.batch_size = 1
    config.train_dataloader.dataset.pipeline.append({'type': 'PackSegInputs'})
    said = browse(config, tmp_path / 'sheet.jpg', 1)
    assert said.startswith('1 of 1 training images')
    ((image, labels),) = drawn
    assert (labels[: SIZE[1], : SIZE[0]] == 3).all()
    np.testing.assert_array_equal(image[: SIZE[1], : SIZE[0]], pixels())
    assert (tmp_path / 'sheet.jpg').is_file()


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.JPEG'])
def test_a_sheet_replaces_a_sheet_and_nothing_else(small_coco, tmp_path, monkeypatch, suffix):
    config = detector_config(small_coco)
    sheet, photo = tmp_path / f'sheet{suffix}', tmp_path / f'photo{suffix}'
    for _ in range(2):
        browse(config, sheet, 1)
    Image.fromarray(pixels()).save(photo)
    before = photo.read_bytes()
    inside = small_coco / f'images/train/sheet{suffix}'
    for out, said in ((photo, 'nothing shows'), (inside, 'is inside')):
        with pytest.raises(UserError, match=said):
            browse(config, out, 1)
    assert photo.read_bytes() == before
    assert not inside.exists()


@pytest.mark.parametrize(
    ('out', 'number', 'said'),
    [('sheet.gif', 1, 'give a file that ends in .jpg'), ('sheet.jpg', 0, '--number 0: give')],
)
def test_arguments_that_cannot_be(small_coco, tmp_path, out, number, said):
    with pytest.raises(UserError, match=said):
        browse(detector_config(small_coco), tmp_path / out, number)
