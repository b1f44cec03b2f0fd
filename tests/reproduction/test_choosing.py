"""Accuracy over the latency of whole models."""

import runpy

import pytest
import yaml
from helpers.repository import REPOSITORY

from lightvit_mm.errors import UserError
from lightvit_mm.reproduction.choosing import latencies, own_panels, published_panels, read_own
from lightvit_mm.reproduction.choosing_page import DEVICES, as_page, draw
from lightvit_mm.reproduction.published import read_published

ROWS = read_published(
    REPOSITORY / 'configs/published.yml',
    'retinanet_edgevit_*',
    'ssdlite_*_s_*',
    'mask_rcnn_repvit_m[12]_*',
    'deeplabv3_*',
)
PEERS = [
    {'model': 'fast one', 'dataset': 'coco', 'input': [640, 640], 'published': {'bbox_mAP': 41.0}},
    {'model': 'segmentor', 'dataset': 'ade20k', 'input': [512, 512], 'published': {'mIoU': 37.4}},
]
TIMES = {
    'retinanet_edgevit_s_coco': (800, 1344, 1.5),
    'retinanet_edgevit_xs_coco': (800, 1344, 1.0),
    'ssdlite_mobilevit_s_coco': (320, 320, 0.06),
    'mask_rcnn_repvit_m1_1_coco': (800, 1344, 2.0),
    'mask_rcnn_repvit_m2_coco': (800, 1344, 2.0),
    'fast one': (640, 640, 0.09),
    'segmentor': (512, 512, 0.2),
}
OWN = {
    'sets': {
        'cells': {'title': 'Boxes, cells', 'metric': 'box AP', 'about': 'Ten minutes each.'},
    },
    'rows': [
        {
            'config': 'retinanet_edgevit_xs_coco', 'set': 'cells', 'accuracy': 36.4,
            'command': 'python tools/train.py cells.py',
        },
        {
            'config': 'ssdlite_mobilevit_s_coco', 'set': 'cells', 'accuracy': 30.0,
            'command': 'python tools/train.py cells.py',
        },
        {
            'config': 'ssdlite_mobilevit_s_coco', 'set': 'cells', 'accuracy': 40.0,
            'input': [512, 512], 'command': 'python tools/train.py large.py',
        },
    ],
}  # fmt: skip


def benchmark(**changes):
    results = []
    for model, (height, width, seconds) in TIMES.items():
        row = {'model': model, 'dtype': 'fp32', 'how': '', 'timing': {'median': seconds}}
        other = {**row, 'how': 'onnxruntime', 'timing': {'median': seconds / 2}}
        half = {**row, 'dtype': 'bf16', 'timing': {'median': seconds / 2}}
        results.append({'shape': [1, 3, height, width], 'rows': [row, other, half], **changes})
    machine = {'device': 'A', 'instructions': 'B', 'torch': 'C', 'threads': 2}
    return {'command': 'python measure', 'machine': machine, 'results': results}


@pytest.fixture
def panels():
    return published_panels(ROWS, PEERS, latencies([benchmark()]))


def test_published_accuracy_meets_the_latency_in_pytorch(panels):
    assert [panel.title for panel in panels] == [
        'Boxes, COCO 2017', 'Masks of objects, COCO 2017'
    ]  # fmt: skip
    assert [(p.model, p.milliseconds, p.accuracy, p.note) for p in panels[0].points] == [
        ('ssdlite_mobilevit_s_coco', 60.0, 27.7, ''),
        ('fast one', 90.0, 41.0, ''),
        ('retinanet_edgevit_xs_coco', 1000.0, 40.6, 'recalled'),
        ('retinanet_edgevit_s_coco', 1500.0, 43.4, 'recalled'),
        ('mask_rcnn_repvit_m1_1_coco', 2000.0, 39.8, ''),
    ]
    assert [p.model for p in panels[1].points] == ['mask_rcnn_repvit_m1_1_coco']


def test_the_best_within_a_time(panels):
    boxes = panels[0]
    assert boxes.best(50) is boxes.rival(50) is None
    assert (boxes.best(80).model, boxes.rival(80)) == ('ssdlite_mobilevit_s_coco', None)
    assert boxes.best(1200).model == 'retinanet_edgevit_xs_coco'
    assert boxes.rival(1200).model == 'fast one'
    # The most accurate, not the slowest.
    assert boxes.best(9999).model == 'retinanet_edgevit_s_coco'
    assert boxes.rival(9999) is None
    assert boxes.front() == {'ssdlite_mobilevit_s_coco', 'fast one', 'retinanet_edgevit_s_coco'}


def test_our_accuracy_meets_the_latency_at_its_size():
    latency = latencies([benchmark()])
    (panel,) = own_panels(OWN, latency)
    assert [(p.model, p.accuracy) for p in panel.points] == [
        ('ssdlite_mobilevit_s_coco', 30.0),
        ('retinanet_edgevit_xs_coco', 36.4),
    ]
    latency['ssdlite_mobilevit_s_coco', (512, 512)] = 150.0
    (panel,) = own_panels(OWN, latency)
    assert [(p.milliseconds, p.accuracy) for p in panel.points][1] == (150.0, 40.0)


def test_the_page_begins_with_the_answer(panels):
    own = own_panels(OWN, latencies([benchmark()]))
    lines = as_page(panels, own, [benchmark()]).splitlines()
    start = lines.index(f'| | {" | ".join(DEVICES)} |')
    assert start < lines.index('## Published accuracy') < lines.index('## Our own accuracy')
    assert lines[start + 2] == (
        '| Boxes, COCO 2017: box AP, published '
        '| `ssdlite_mobilevit_s_coco`: 27.7, 60 ms (fast one: 41.0, 90 ms) '
        '| `ssdlite_mobilevit_s_coco`: 27.7, 60 ms (fast one: 41.0, 90 ms) '
        '| `retinanet_edgevit_s_coco`: 43.4 *recalled*, 1500 ms |'
    )
    assert lines[start + 3].startswith('| Masks of objects, COCO 2017: mask AP, published | none |')
    assert lines[start + 4].startswith('| Boxes, cells: box AP, ours | `ssdlite_mobilevit_s_coco`')
    assert '| **fast one** | 640 x 640 | 90.0 | 41.0 |' in lines
    assert '| retinanet_edgevit_xs_coco | 800 x 1344 | 1000.0 | 40.6 (*recalled*) |' in lines
    assert lines.count('python tools/train.py cells.py') == 1
    assert 'python measure' in lines


@pytest.mark.parametrize('content', ['{', '[1]', '{}', '{"results": [{"rows": []}]}', b'\xff'])
def test_files_that_are_no_latencies(tmp_path, monkeypatch, capsys, content):
    file = tmp_path / 'latency.json'
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    tool = str(REPOSITORY / 'tools/choose.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', [tool, str(file)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(tool, run_name='__main__')
    assert ended.value.code == 2
    assert f'{file} is not a file of tools/benchmark.py --json' in capsys.readouterr().err


def test_a_page_without_our_own_accuracy_does_not_speak_of_it(panels):
    assert 'Our own' not in as_page(panels, own_panels({'rows': []}, {}), [benchmark()])


def test_the_picture(panels):
    first, second = draw(panels, 'published').axes
    assert first.get_title() == 'Boxes, COCO 2017'
    assert first.get_ylabel() == 'published box AP'
    assert [text.get_text() for text in first.texts] == ['s', 'fast one', 'xs', 's', 'm1_1']
    names = [text.get_text() for text in first.get_legend().get_texts()]
    assert names == [
        'SSDLite, MobileViT', 'mmdet, mmseg', 'RetinaNet, EdgeViT', 'Mask R-CNN, RepViT'
    ]  # fmt: skip
    assert len(second.texts) == 1


def test_only_whole_models_count():
    rows = [{'form': 'lightvit_mm fp32', 'dtype': 'fp32', 'timing': {'median': 1.0}}]
    with pytest.raises(UserError, match='latencies must be of whole models'):
        latencies([benchmark(rows=rows)])


@pytest.mark.parametrize(
    ('row', 'said'),
    [
        ({'config': 'a', 'set': 'cells'}, 'lacks accuracy, command'),
        ({**OWN['rows'][0], 'set': 'stars'}, 'set stars; there are cells'),
    ],
)
def test_rows_that_cannot_be_used(row, said, tmp_path):
    file = tmp_path / 'choose.yml'
    file.write_text(yaml.safe_dump({**OWN, 'rows': [row]}))
    with pytest.raises(UserError, match=said):
        read_own(file)


def test_our_own_file():
    content = read_own(REPOSITORY / 'docs/choose.yml')
    assert {peer['dataset'] for peer in content['peers']} == {'coco', 'ade20k'}
    for row in content['rows']:
        assert (REPOSITORY / f'configs/{row["config"]}.py').is_file(), row
