"""benchmarks/pretraining.py leaves results, repeats none, and fills the table of a page."""

import json
import runpy
import sys

from helpers import class_folders, timm_reference
from helpers.repository import REPOSITORY

PAGE = """Before.
<!-- benchmarks/pretraining.py results -->
An older table.
<!-- end -->
After.
"""


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['benchmarks/pretraining.py', *map(str, words)])
    runpy.run_path(str(REPOSITORY / 'benchmarks/pretraining.py'), run_name='__main__')


def test_a_classifier(tmp_path, monkeypatch, capsys, quick_runner):
    timm_reference.import_timm()
    data, results = class_folders.write_images(tmp_path / 'data'), tmp_path / 'results'
    page = tmp_path / 'page.md'
    page.write_text(PAGE)
    words = [
        REPOSITORY / 'configs/efficientvit_m0_in1k.py', '--results', results, '--page', page,
        '--work-dir', tmp_path / 'work', '--epochs', 1, '--size', 32,
        '--train-data', data / 'train', '--val-data', data / 'val',
    ]  # fmt: skip
    run(monkeypatch, *words)
    found = json.loads((results / 'efficientvit_m0_in1k_seed_0.json').read_text())
    assert found['CPU minutes'] > 0
    assert 0 <= found['top-1'] <= 100
    assert (tmp_path / 'work/seed_0/epoch_1.pth').is_file()
    # These would be other results if the first were repeated.
    for seed, top1 in ((0, 40.0), (1, 50.0)):
        file = results / f'efficientvit_m0_in1k_seed_{seed}.json'
        file.write_text(json.dumps({'CPU minutes': 1.5, 'top-1': top1}))
    run(monkeypatch, *words, '--seeds', 0, 1)
    row = '| efficientvit_m0_in1k | 1.5 (1.5, 1.5) | 45.0 (40.0, 50.0) |'
    assert row in capsys.readouterr().out
    before, table, after = page.read_text().split('<!-- ')
    assert (before, after) == ('Before.\n', 'end -->\nAfter.\n')
    assert table.splitlines()[1:] == ['| run | CPU minutes | top-1 |', '|---|---|---|', row]
