"""Whole benchmarks at a tiny size, and their reports."""

import json
import time

import pytest
import torch
from helpers.repository import REPOSITORY, run_tool
from helpers.variants import VARIANTS
from torch import nn

from lightvit_mm.backbones import EdgeViT, RepViT, ShuffleT2TViT
from lightvit_mm.benchmark import run
from lightvit_mm.benchmark.report import (
    as_table,
    check_files,
    exponent,
    mean_ratios,
    plot,
    write_json,
)
from lightvit_mm.benchmark.run import Result, Row, Settings, benchmark
from lightvit_mm.benchmark.subjects import Subject, find_subjects, variants
from lightvit_mm.errors import UserError
from lightvit_mm.measure.complexity import count_macs, count_parameters
from lightvit_mm.measure.limits import Ceilings, Floors
from lightvit_mm.measure.timing import Timing

QUICK = {'rounds': 1, 'min_seconds': 0.0}
MACHINE = Ceilings(gflops=100.0, product='8x8x8', copy_gb=10.0)


@pytest.fixture
def known_machine(monkeypatch):
    monkeypatch.setattr(run, 'measure_ceilings', lambda *_: MACHINE)


def small_repvit():
    return Subject('small', lambda: RepViT(arch='m0_6', out_indices=(0, 1)))


def test_every_variant_has_a_name():
    names = variants()
    assert len(names) == len(VARIANTS)
    model = names['shuffle_t2t_vit_7'].build()
    assert isinstance(model, ShuffleT2TViT)
    assert model.arch_name == '7'


def test_names_patterns_and_configs():
    config = str(REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py')
    found = find_subjects(['repvit_m1_*', 'repvit_m1_1', config])
    assert [each.name for each in found] == [
        'repvit_m1_0', 'repvit_m1_1', 'repvit_m1_5', 'retinanet_edgevit_xxs_shapes'
    ]  # fmt: skip
    assert isinstance(found[-1].build(), EdgeViT)


def test_unknown_names():
    with pytest.raises(UserError, match=r'repvit_m9 is neither .* edgevit_xxs, '):
        find_subjects(['repvit_m9'])


def test_settings_that_do_not_go_together():
    with pytest.raises(UserError, match='--onnxruntime'):
        Settings(runtimes=('onnxruntime',), train=True)
    with pytest.raises(UserError, match='--device gpu: choose cpu, cuda'):
        Settings(device='gpu')


def test_inference(known_machine):
    result = benchmark(small_repvit(), (64, 96), Settings(dtypes=('fp32', 'bf16'), **QUICK))
    assert result.shape == (1, 3, 64, 96)
    assert result.baseline == 'lightvit_mm fp32'
    model = RepViT(arch='m0_6', out_indices=(0, 1)).eval().switch_to_deploy()
    row, half = result.rows
    assert (row.form, half.form) == ('lightvit_mm fp32', 'lightvit_mm bf16')
    assert row.macs == half.macs == count_macs(model, 64, 96)
    assert row.parameters == count_parameters(model)
    assert row.floors.compute == pytest.approx(2e-9 * row.macs / 100)
    assert half.floors.memory == pytest.approx(row.floors.memory / 2)
    assert row.peak_bytes > half.peak_bytes > 0
    assert row.timing.ratio == 1
    assert half.timing.ratio == pytest.approx(row.timing.median / half.timing.median)
    assert row.gflops == pytest.approx(2e-9 * row.macs / row.timing.median)


def test_training(known_machine):
    result = benchmark(small_repvit(), (64, 64), Settings(train=True, batch=2, **QUICK))
    model = RepViT(arch='m0_6', out_indices=(0, 1))
    (row,) = result.rows
    assert row.macs == 3 * 2 * count_macs(model, 64, 64)
    assert row.parameters == count_parameters(model)
    # At least the gradients.
    assert row.peak_bytes > 4 * row.parameters


def test_against_timm(known_machine):
    from helpers.timm_reference import import_timm

    import_timm()
    settings = Settings(timm=True, **QUICK)
    result = benchmark(variants()['efficientvit_m0'], (112, 112), settings)
    names = [row.form for row in result.rows]
    assert names == ['lightvit_mm fp32', 'timm fp32', 'timm fp32 channels_last']
    theirs = {row.form: row.timing.median for row in result.rows[1:]}
    assert result.baseline == min(theirs, key=theirs.get)
    assert result.note == ''
    without = benchmark(variants()['edgevit_xxs'], (32, 32), settings)
    assert without.note == 'timm has no edgevit_xxs'
    assert without.baseline == 'lightvit_mm fp32'


class Rival(nn.Module):
    """A convolution that takes at least ``seconds``."""

    def __init__(self, seconds):
        super().__init__()
        self.conv, self.seconds = nn.Conv2d(3, 4, 3, stride=2), seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return [self.conv(x)]


def test_the_fastest_rival_is_the_baseline(known_machine):
    rivals = {'slow': Rival(0.2), 'fast': Rival(0.0)}
    result = benchmark(small_repvit(), (64, 64), Settings(**QUICK), rivals)
    assert [row.form for row in result.rows] == ['lightvit_mm fp32', 'slow fp32', 'fast fp32']
    assert result.baseline == 'fast fp32'
    assert [row.timing.ratio for row in result.rows][2] == 1
    assert result.rows[1].timing.ratio < 0.5


def test_the_first_rival_is_exported_and_no_baseline(known_machine):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason='export needs it: pip install -e ".[onnx]"')
    rivals = {'first': Rival(0.01), 'second': Rival(0.2)}
    settings = Settings(runtimes=('onnxruntime',), **QUICK)
    result = benchmark(small_repvit(), (64, 64), settings, rivals)
    assert [row.form for row in result.rows] == [
        'lightvit_mm fp32', 'lightvit_mm fp32 onnxruntime', 'first fp32', 'second fp32',
        'first fp32 onnxruntime',
    ]  # fmt: skip
    # Exported, it no longer sleeps and is faster, but only eager forms can be the baseline.
    assert result.rows[4].timing.median < result.rows[2].timing.median
    assert result.baseline == 'first fp32'
    assert [row.peak_bytes is None for row in result.rows] == [False, True, False, False, True]


def test_rivals_run_in_the_layout_of_their_kernels(known_machine):
    seen = {}

    class Watched(Rival):
        def forward(self, x):
            seen[self.seconds] = x.is_contiguous(memory_format=torch.channels_last)
            return super().forward(x)

    rivals = {'plain': Watched(0.0), 'turned': Watched(0.001).to(memory_format=torch.channels_last)}
    benchmark(small_repvit(), (64, 64), Settings(**QUICK), rivals)
    assert seen == {0.0: False, 0.001: True}


def made_up(name, side, seconds, baseline='timm fp32', ratio=2.0):
    def row(form, source, median, ratio):
        timing = Timing(form, 3, median, (0.9 * median, 1.1 * median), ratio, (ratio, ratio))
        floors = Floors(compute=median / 4, memory=median / 2)
        return Row(form, source, 'fp32', '', None, timing, 10**6, 10**6, 10**9, floors)

    rows = [row('lightvit_mm fp32', 'lightvit_mm', seconds, ratio)]
    if baseline.startswith('timm'):
        rows.append(row(baseline, 'timm', ratio * seconds, 1.0))
    shape = (1, 3, side, side)
    return Result(name, shape, False, baseline, {'fp32': MACHINE}, rows, [], '')


def test_shares_of_the_limits():
    row = made_up('a', 256, 0.1).rows[0]
    assert row.gflops == pytest.approx(20)
    assert row.of_peak == pytest.approx(0.25)
    assert row.of_floor == pytest.approx(0.5)


def test_geometric_mean():
    results = [
        made_up('a', 256, 0.1, ratio=1.0),
        made_up('b', 256, 0.1, ratio=4.0),
        made_up('c', 256, 0.1, 'lightvit_mm fp32', ratio=1.0),
    ]
    assert mean_ratios(results) == {'lightvit_mm fp32': (pytest.approx(2.0), 2)}


def test_json(tmp_path):
    file = tmp_path / 'new' / 'out.json'
    write_json(str(file), [made_up('a', 256, 0.1)], 'cpu', 'python tools/benchmark.py a')
    content = json.loads(file.read_text())
    assert content['command'] == 'python tools/benchmark.py a'
    assert content['machine']['threads'] >= 1
    (result,) = content['results']
    assert result['shape'] == [1, 3, 256, 256]
    assert result['ceilings']['fp32']['gflops'] == 100
    row = result['rows'][0]
    assert row['timing']['median'] == 0.1
    assert row['timing']['ratio'] == 2
    assert (row['peak_bytes'], row['parameters'], row['macs']) == (10**6, 10**6, 10**9)
    assert (row['gflops'], row['of_peak'], row['of_floor']) == (20, 0.25, 0.5)


def test_table():
    table = as_table(made_up('a', 256, 0.1))
    assert table.title == 'a, inference, input 1x3x256x256'
    assert list(table.columns[0].cells) == ['lightvit_mm fp32', 'timm fp32 *']
    assert list(table.columns[1].cells) == ['100.00', '200.00']


def test_exponent_and_chart(tmp_path):
    assert exponent([256, 512, 1024], [1.0, 4.0, 16.0]) == pytest.approx(2)
    results = [made_up('a', side, 1e-6 * side**2.5) for side in (256, 512, 1024)]
    results += [made_up('b', side, 1e-6 * side**2, 'lightvit_mm fp32') for side in (256, 512)]
    file = tmp_path / 'chart.png'
    powers = plot(str(file), results, 'made up')
    assert powers == pytest.approx({'a': 2.5, 'timm a': 2.5, 'b': 2.0})
    assert file.read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('suffix', ['', '.svg', '.pdf'])
def test_files_are_checked_first(tmp_path, suffix):
    results = [made_up('a', side, 1e-6 * side**2.5) for side in (256, 512)]
    table, chart = str(tmp_path / 'new/table.json'), str(tmp_path / f'new/chart{suffix}')
    for _ in range(2):
        check_files(table, chart)
        write_json(table, results, 'cpu', 'python')
        plot(chart, results, 'made up')
    plot(str(tmp_path / 'chart.jpg'), results, 'made up')
    with pytest.raises(UserError, match=r'chart\.jpg exists, and nothing shows'):
        check_files(None, str(tmp_path / 'chart.jpg'))
    other = tmp_path / f'other{suffix}'
    other.write_text('{"images": []}')
    for arguments, said in (
        ((str(other), None), '--json .* nothing shows that this tool wrote it'),
        ((None, str(other)), '--plot .* nothing shows that this tool wrote it'),
        ((None, f'{other}/below'), 'cannot be written'),
        ((None, str(tmp_path / 'chart.doc')), 'chart.doc: give a suffix of .*png'),
    ):
        with pytest.raises(UserError, match=said):
            check_files(*arguments)


def test_the_tool(tmp_path):
    done = run_tool(
        'tools/benchmark.py', 'repvit_m0_6', '--sizes', '32', '64x32', '--rounds', '1',
        '--seconds', '0', '--threads', '1', '--json', tmp_path / 'out.json',
        '--plot', tmp_path / 'out.png',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert '[2/2] measuring repvit_m0_6, 64x32' in done.stdout
    assert f'2 tables; wrote {tmp_path}/out.json, {tmp_path}/out.png' in done.stdout
    content = json.loads((tmp_path / 'out.json').read_text())
    assert [result['shape'] for result in content['results']] == [[1, 3, 32, 32], [1, 3, 64, 32]]
    assert content['machine']['threads'] == 1
