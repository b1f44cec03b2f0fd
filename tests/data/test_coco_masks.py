"""Masks that mmdet would stop at or misread are refused; the others are read."""

import numpy as np
import pytest
from helpers import small_data
from helpers.annotations import first, judged, mmdet_reads, set_first, write_and_check
from pycocotools import mask as codec

from lightvit_mm.data.checking import check_everything, summary
from lightvit_mm.data.coco_masks import decompress
from lightvit_mm.data.findings import ERROR, WARNING
from lightvit_mm.data.own import use_own_data

RLE = {'size': [48, 64], 'counts': [48 * 32, 48 * 32]}


def compressed(runs: list[int]) -> str:
    return codec.frPyObjects({'size': [48, 64], 'counts': runs}, 48, 64)['counts'].decode()


def mask(**values):
    return lambda content: first(content).update(segmentation={**RLE, **values})


MASKS = {
    'uncompressed': (mask(), None, None, 12),
    'compressed': (mask(counts=compressed([1000, 2072])), None, None, 12),
    'no polygon': (set_first(segmentation=[[1, 2, 3]]), WARNING, 'instance ignored', 11),
    'half a polygon': (
        set_first(segmentation=[[1, 2, 3], [0, 0, 9, 0, 9, 9]]), WARNING, 'without three', 12,
    ),
    'no runs': (mask(counts=None), WARNING, 'without runs', 11),
    'of another size': (mask(size=[10, 10]), ERROR, 'mask of another size', 'silent'),
    'compressed of another size': (
        mask(size=[10, 10], counts=compressed([1000, 2072])), ERROR, 'mask of another size', None,
    ),
    'runs too few': (mask(counts=[10, 10]), ERROR, 'do not fill', 'silent'),
    'runs too many': (mask(counts=[9999, 1]), ERROR, 'do not fill', None),
    'compressed runs too few': (mask(counts=compressed([9, 9])), ERROR, 'do not fill', 'silent'),
    'negative runs': (mask(counts=[-5, 3077]), ERROR, 'do not fill', None),
    'missing': (lambda content: first(content).pop('segmentation'), ERROR, 'mask missing', None),
    'flat': (set_first(segmentation=[1, 2, 3, 4, 5, 6]), ERROR, 'not a list of polygons', None),
    'text': (set_first(segmentation=[['a'] * 6]), ERROR, 'is not a number', None),
    'endless polygon': (
        set_first(segmentation=[[0, 0, 1e300, 0, 9, 9]]), ERROR, 'larger than any image', 'silent',
    ),
    'no RLE': (set_first(segmentation={'runs': 1}), ERROR, 'neither polygons', 'silent'),
}  # fmt: skip


@pytest.mark.parametrize(('spoil', 'severity', 'kind', 'read'), MASKS.values(), ids=MASKS)
def test_masks(root, content, spoil, severity, kind, read):
    spoil(content)
    config, reports = write_and_check(root, content, masks=True)
    if severity is None:
        assert not [finding for report in reports for finding in report.findings]
    else:
        assert judged(reports, severity, kind), summary(reports)
    if read is None:
        with pytest.raises(Exception):  # noqa: B017 (mmdet's own, of many types)
            mmdet_reads(config, masks=True)
    elif read != 'silent':
        assert mmdet_reads(config, masks=True) == read
    without, reports = write_and_check(root, content)
    assert not judged(reports, ERROR, '') and mmdet_reads(without) == 12, 'masks are not read'


def test_run_lengths_where_polygons_only_are_read(root, content, capsys):
    mask()(content)
    small_data.write_coco(root, content)
    config = small_data.detector_config(root, masks=True)
    config.train_dataloader.dataset.pipeline[1].poly2mask = False
    assert judged(check_everything(config), ERROR, 'mask of run lengths, instance ignored')
    assert mmdet_reads(config) == 11
    place = (f'{root}/annotations/instances_train.json', f'{root}/images/train')
    use_own_data(config, place)
    assert 'poly2mask False -> True' in capsys.readouterr().out
    assert not judged(check_everything(config), ERROR, '')
    assert mmdet_reads(config, masks=True) == 12

    first(content).update(iscrowd=1)  # as COCO stores crowds
    small_data.write_coco(root, content)
    config.train_dataloader.dataset.pipeline[1].poly2mask = False
    use_own_data(config, place)
    assert not judged(check_everything(config), ERROR, '')
    assert config.train_dataloader.dataset.pipeline[1].poly2mask is False


def test_compressed_runs_are_read_as_pycocotools_writes_them():
    generator = np.random.default_rng(0)
    for _ in range(50):
        runs = generator.integers(0, 2000, generator.integers(1, 12)).tolist()
        text = codec.frPyObjects({'size': [1, sum(runs)], 'counts': runs}, 1, sum(runs))['counts']
        assert decompress(text.decode()) == runs
