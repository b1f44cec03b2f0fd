"""Files are written completely or not at all."""

import errno
import os
import resource
import signal

import pytest

from lightvit_mm.files import whole_file, write_whole


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('error', [ValueError('no'), KeyboardInterrupt(), OSError('it ended')])
def test_an_error_keeps_the_old_content(tmp_path, error, shared):
    path = tmp_path / 'file'
    path.write_text('old')
    with pytest.raises(type(error)) as caught, whole_file(path, shared) as part:
        part.write_text('half')
        raise error
    assert str(caught.value) == str(error)
    assert caught.value is error
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_too_large_for_the_disk_leaves_the_one_before(tmp_path):
    path = tmp_path / 'file'
    write_whole(path, b'old')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal by which the system would end the process.
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match='file') as caught:
            write_whole(path, bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    path = tmp_path / 'file'
    with pytest.raises(FileNotFoundError) as caught, whole_file(path):
        pass  # nothing is written
    assert caught.value.filename == str(path)
    assert '.part' not in str(caught.value)
    (tmp_path / 'taken').mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_whole(tmp_path / 'taken', 'new')
    assert caught.value.filename == str(tmp_path / 'taken')
    assert os.listdir(tmp_path) == ['taken']


def test_errors_about_other_files_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / 'file'):
        (tmp_path / 'source').read_bytes()
    assert caught.value.filename == str(tmp_path / 'source')


def test_folders_are_made(tmp_path):
    path = tmp_path / 'a/b/file'
    write_whole(path, 'grün')
    assert path.read_text(encoding='utf-8') == 'grün'
    assert list(path.parent.iterdir()) == [path]


def test_links_are_followed(tmp_path):
    real, link = tmp_path / 'disk/real', tmp_path / 'link'
    real.parent.mkdir()
    real.write_text('old')
    link.symlink_to(real)
    write_whole(link, 'new')
    assert link.is_symlink()
    assert real.read_text() == 'new'
    assert list(real.parent.iterdir()) == [real]


def test_what_a_dead_process_left_is_replaced(tmp_path):
    (tmp_path / 'file.part').write_text('left by a dead process')
    write_whole(tmp_path / 'file', 'new')
    assert os.listdir(tmp_path) == ['file']
    assert (tmp_path / 'file').read_text() == 'new'


def test_two_writers_of_a_shared_file(tmp_path):
    path = tmp_path / 'file'
    with whole_file(path, shared=True) as first, whole_file(path, shared=True) as second:
        first.write_text('one')
        second.write_text('two')
        assert first != second
    assert path.read_text() == 'one', 'the outer block ends last'
    assert os.listdir(tmp_path) == ['file']
