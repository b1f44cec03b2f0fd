"""Files are either whole or absent."""

import os
import shutil

import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.runner.checkpoint import save_checkpoint

from lightvit_mm.engine.whole_files import WholeFileBackend, is_whole, latest_checkpoint


def save(path, number=0.0, age=0):
    """A checkpoint; ``age`` seconds older than now."""
    path.parent.mkdir(exist_ok=True)
    weight = torch.full((50, 50), number)
    save_checkpoint({'state_dict': {'w': weight}, 'optimizer': {'state': {0: weight}}}, str(path))
    written = path.stat().st_mtime - age
    os.utime(path, (written, written))
    return path


def name(work_dir, path):
    (work_dir / 'last_checkpoint').write_text(str(path))


def test_mmengine_writes_through_it(tmp_path):
    assert isinstance(get_file_backend(str(tmp_path)), WholeFileBackend)
    path = save(tmp_path / 'deeper' / 'epoch_1.pth')
    assert [file.name for file in path.parent.iterdir()] == ['epoch_1.pth']
    assert is_whole(path)


def test_bytes_and_text(tmp_path):
    backend, path = WholeFileBackend(), tmp_path / 'file'
    backend.put(b'old', path)
    assert path.read_bytes() == b'old'
    with pytest.raises(TypeError):
        backend.put(1, path)
    assert path.read_bytes() == b'old'
    backend.put_text('grün', path)
    assert path.read_text(encoding='utf-8') == 'grün'
    backend.put_text('grün', path, encoding='latin-1')
    assert path.read_bytes() == b'gr\xfcn'
    assert list(tmp_path.iterdir()) == [path]


def test_every_kind_of_damage_is_seen(tmp_path):
    content = save(tmp_path / 'whole.pth').read_bytes()
    broken = tmp_path / 'broken.pth'
    for size in range(0, len(content), 97):
        broken.write_bytes(content[:size])
        assert not is_whole(broken), size
    # A changed byte in a tensor, and a block that a crash left unwritten.
    middle = len(content) // 2
    broken.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert not is_whole(broken)
    ones = save(tmp_path / 'ones.pth', 1.0).read_bytes()
    broken.write_bytes(ones[:middle] + bytes(512) + ones[middle + 512 :])
    assert not is_whole(broken)
    assert not is_whole(tmp_path / 'absent.pth')


def test_the_latest_is_the_named_one(tmp_path):
    newer = save(tmp_path / 'epoch_10.pth', age=5)
    # A run that was restarted from an earlier epoch: its newest file has a smaller number.
    named = save(tmp_path / 'epoch_6.pth')
    name(tmp_path, named)
    assert latest_checkpoint(tmp_path) == str(named)
    # File times mixed up by copying.
    name(tmp_path, newer)
    assert latest_checkpoint(tmp_path) == str(newer)


def test_the_latest_may_not_be_named_yet(tmp_path):
    name(tmp_path, save(tmp_path / 'epoch_1.pth', age=5))
    path = save(tmp_path / 'epoch_2.pth')
    assert latest_checkpoint(tmp_path) == str(path)


def test_half_a_name_is_none(tmp_path):
    save(tmp_path / 'iter_100.pth', age=5)
    path = save(tmp_path / 'iter_200.pth')
    save(tmp_path / 'best_mIoU_iter_300.pth')
    for text in ('', str(path)[:-6]):
        name(tmp_path, text)
        assert latest_checkpoint(tmp_path) == str(path)


def test_a_moved_work_dir(tmp_path):
    name(tmp_path, save(tmp_path / 'run' / 'epoch_1.pth'))
    shutil.move(tmp_path / 'last_checkpoint', tmp_path / 'run')
    moved = tmp_path / 'moved'
    shutil.move(tmp_path / 'run', moved)
    assert latest_checkpoint(moved) == str(moved / 'epoch_1.pth')


def test_damaged_ones_are_named_and_passed_over(tmp_path, mm_log):
    good = save(tmp_path / 'epoch_1.pth', age=9)
    undefined = save(tmp_path / 'epoch_2.pth', float('nan'), age=5)
    short = save(tmp_path / 'epoch_3.pth')
    short.write_bytes(short.read_bytes()[:5000])
    name(tmp_path, short)
    assert latest_checkpoint(tmp_path) == str(undefined)
    assert f'{short} is damaged: passed over' in mm_log
    assert latest_checkpoint(tmp_path, finite=True) == str(good)
    assert f'{undefined} holds infinite or undefined numbers: passed over' in mm_log


def test_nothing_there(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / 'absent') is None
    (tmp_path / 'file').touch()
    assert latest_checkpoint(tmp_path / 'file' / 'below') is None
