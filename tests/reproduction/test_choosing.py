"""Published accuracy over measured latency."""

import runpy

import pytest
from helpers.repository import REPOSITORY

from lightvit_mm.errors import UserError
from lightvit_mm.reproduction.choosing import accuracy, as_page, chosen, draw, latencies
from lightvit_mm.reproduction.published import read_published

ROWS = read_published(
    REPOSITORY / 'configs/published.yml',
    'retinanet_edgevit_*',
    'deeplabv3_*',
    'mask_rcnn_repvit_m2_c*',
)


def benchmark(**changes):
    results = [
        {
            'backbone': f'edgevit_{arch}',
            'shape': [1, 3, 800, 1344],
            'train': False,
            'rows': [{'dtype': 'fp32', 'timing': {'median': seconds}}],
            **changes,
        }
        for arch, seconds in (('s', 0.4), ('xs', 0.25), ('xxs', 0.2))
    ]
    machine = {'device': 'A', 'instructions': 'B', 'torch': 'C', 'threads': 2}
    return {'command': 'python measure', 'machine': machine, 'results': results}


def test_every_row_finds_its_latency():
    groups = chosen(ROWS, latencies(benchmark()))
    assert list(groups) == ['retinanet']
    assert [(variant, time) for _, variant, time in groups['retinanet']] == [
        ('edgevit_xxs', 200.0),
        ('edgevit_xs', 250.0),
        ('edgevit_s', 400.0),
    ]
    assert [accuracy(row) for row, _, _ in groups['retinanet']] == [
        ('box AP', 38.7),
        ('box AP', 40.6),
        ('box AP', 43.4),
    ]
    page = as_page(groups, benchmark())
    assert '| edgevit_s | 400.0 | box AP 43.4 (*recalled*) |' in page
    assert 'python measure' in page
    axes = draw(groups).axes[0]
    assert axes.get_title() == 'RetinaNet, COCO 2017, 800 x 1344'
    assert [text.get_text() for text in axes.texts] == ['edgevit_xxs', 'edgevit_xs', 'edgevit_s']


def test_a_variant_that_was_not_measured_is_named():
    measured = latencies(benchmark())
    del measured['edgevit_xs', 800, 1344]
    with pytest.raises(UserError, match='not measured: edgevit_xs at 800x1344'):
        chosen(ROWS, measured)


@pytest.mark.parametrize('changes', [{'train': True}, {'shape': [2, 3, 800, 1344]}])
def test_only_inference_on_one_image_counts(changes):
    with pytest.raises(UserError, match='inference on one image in fp32'):
        latencies(benchmark(**changes))


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
