"""What runners and authors write is read as it was; nothing else makes Python touch its memory."""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from lightvit_mm.checkpoints import CheckpointError, read_checkpoint
from lightvit_mm.checkpoints.unpickling import MAX_DEPTH

SCRIPT = Path(__file__).parents[1] / 'helpers/hostile_pickles.py'


def test_attacks_on_memory_are_refused(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True)
    tried = [line.split(': ', 1) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.stdout.splitlines()[-1], done.stderr[-2000:])
    assert len(tried) == 32
    assert not [case for case in tried if case[1] != 'refused']


ARRAYS = {
    'numbers': np.arange(6.0).reshape(2, 3),
    'columns': np.asfortranarray(np.arange(6, dtype='i4').reshape(2, 3)),
    'other byte order': np.arange(3, dtype='>f8'),
    'half': np.ones(3, 'f2'),
    'booleans': np.array([True, False]),
    'texts': np.array([['cat', 'ä'], ['', 'x']]),
    'empty': np.zeros((0, 4), 'u1'),
    'one': np.array(3.0),
}


@pytest.mark.parametrize('legacy', [False, True])
def test_arrays_and_numbers_of_numpy(tmp_path, legacy):
    numbers = [np.float32(0.5), np.int64(-3), np.bool_(True), np.str_('a'), np.str_('')]
    content = {
        'state_dict': {},
        'meta': {
            'arrays': [ARRAYS, tuple(ARRAYS.values())],
            'args': argparse.Namespace(inner=argparse.Namespace(array=ARRAYS['numbers'])),
            'nothing': argparse.Namespace(),
            'types': [np.dtype('f4'), np.dtype('>i8'), np.dtype('U3')],
            'numbers': numbers,
            np.int64(3): 'key',
        },
    }
    file = tmp_path / 'epoch_1.pth'
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    meta = read_checkpoint(file)['meta']
    by_name, in_order = meta['arrays']
    for name, same, array in zip(by_name, in_order, ARRAYS.values(), strict=True):
        read = by_name[name]
        assert read is same
        assert type(read) is np.ndarray
        np.testing.assert_array_equal(read, array, strict=True)
        assert read.flags.f_contiguous == array.flags.f_contiguous
        assert read.flags.writeable
    assert type(meta['args']) is argparse.Namespace
    np.testing.assert_array_equal(meta['args'].inner.array, ARRAYS['numbers'])
    assert meta['nothing'] == argparse.Namespace()
    assert meta['types'] == content['meta']['types']
    assert meta['numbers'] == numbers
    assert [type(number) for number in meta['numbers']] == [type(number) for number in numbers]
    assert meta[3] == 'key'
    torch.save(meta, file)  # as the content of a new checkpoint
    torch.load(file, weights_only=False)


def test_a_history_goes_on(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1], max_length=3)
    torch.save({'state_dict': {}, 'log': [history]}, tmp_path / 'epoch_1.pth')
    (read,) = read_checkpoint(tmp_path / 'epoch_1.pth')['log']
    assert type(read) is HistoryBuffer
    for value in (3.0, 4.0):
        read.update(value)
    assert read.data[0].tolist() == [2.0, 3.0, 4.0]
    assert read.statistics('mean') == 3.0


def test_a_file_does_not_change_the_statistics(tmp_path):
    history = HistoryBuffer([1.0], [1])
    state = {**history.__dict__, 'statistics_methods': {'mean': torch.Size}}
    evil = HistoryBuffer()
    evil.__getstate__ = lambda: state  # pickle looks it up on the object
    torch.save({'state_dict': {}, 'log': evil}, tmp_path / 'evil.pth')
    assert read_checkpoint(tmp_path / 'evil.pth')['log'].statistics('mean') == 1.0
    assert HistoryBuffer._statistics_methods['mean'] is HistoryBuffer.mean


def test_nesting_up_to_the_limit(tmp_path):
    deep: list = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    torch.save({'w': torch.ones(1), 'x': {'y': torch.ones(1).expand(1000)}}, tmp_path / 'a.pth')
    assert read_checkpoint(tmp_path / 'a.pth')['x']['y'].shape == (1000,)
    for content, works in ((deep, True), ([deep], False)):
        torch.save({'state_dict': {}, 'x': content}, tmp_path / 'a.pth')
        if works:
            assert read_checkpoint(tmp_path / 'a.pth')['x'] == deep
        else:
            with pytest.raises(CheckpointError, match=f'more than {MAX_DEPTH} deep'):
                read_checkpoint(tmp_path / 'a.pth')
