"""Files are written completely or not at all."""

import errno
import os
import resource
import signal

import pytest

from lightvit_mm.errors import UserError, user_errors
from lightvit_mm.files import (
    check_output_file,
    check_output_folder,
    whole_file,
    whole_files,
    write_whole,
)


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
    assert str(caught.value).endswith("/taken'")
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


MARK = b'made by the tool'


def refusal(check, *arguments):
    with pytest.raises(UserError) as caught:
        check(*arguments)
    assert str(caught.value).startswith(f'--out {arguments[0]} ')
    return str(caught.value)


def test_own_files_and_empty_ones_may_be_replaced(tmp_path):
    path = tmp_path / 'a/b/page.html'
    for content in (None, b'', b'<p>made by the tool'):
        if content is not None:
            write_whole(path, content)
        check_output_file(path, '--out', MARK, [tmp_path / 'not there', 'https://x.org/y.pth'])
    assert path.read_bytes() == content


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(b'a photo')
    assert 'nothing shows that this tool wrote it' in refusal(
        check_output_file, path, '--out', MARK
    )
    (tmp_path / 'link').symlink_to(path)
    assert 'nothing shows' in refusal(check_output_file, tmp_path / 'link', '--out', MARK)
    assert 'is a folder' in refusal(check_output_file, tmp_path, '--out', MARK)
    assert 'is not a regular file' in refusal(check_output_file, '/dev/null', '--out', MARK)


@pytest.mark.parametrize('how', ['same', 'relative', 'link', 'hard link', 'link to the folder'])
def test_an_input_is_not_an_output(tmp_path, monkeypatch, how):
    path = tmp_path / 'in/model.onnx'
    write_whole(path, b'made by the tool')
    other = tmp_path / 'other'
    if how == 'same':
        other = path
    elif how == 'relative':
        monkeypatch.chdir(path.parent)
        other = '../in/model.onnx'
    elif how == 'link':
        other.symlink_to(path)
    elif how == 'hard link':
        os.link(path, other)
    else:
        other.symlink_to(path.parent)
        other = other / path.name
    assert 'is an input' in refusal(check_output_file, other, '--out', MARK, [path])


def test_nothing_is_written_into_a_folder_of_inputs(tmp_path, monkeypatch):
    photos = tmp_path / 'photos'
    photos.mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'link').symlink_to(photos)
    for out in (photos / 'a/b', 'photos/new', 'link/new', 'link/../photos/new'):
        for check in (check_output_file, check_output_folder):
            marks = MARK if check is check_output_file else ['sign']
            assert 'is inside' in refusal(check, out, '--out', marks, ['photos'])
    assert 'is an input' in refusal(check_output_folder, 'link', '--out', ['sign'], ['photos'])
    # A folder beside it, and one above it, are none of it.
    check_output_folder('photos2', '--out', ['sign'], ['photos'])
    check_output_folder(tmp_path, '--out', ['sign'], ['photos'])


def test_a_folder_of_other_images_is_left_alone(tmp_path):
    (tmp_path / 'notes.txt').touch()
    check_output_folder(tmp_path, '--out', ['sign'])
    (tmp_path / 'photo.JPG').touch()
    said = refusal(check_output_folder, tmp_path, '--out', ['sign'])
    assert 'photo.JPG' in said
    (tmp_path / 'sign').touch()
    check_output_folder(tmp_path, '--out', ['other', 'sign'])
    said = refusal(check_output_folder, tmp_path / 'notes.txt', '--out', ['sign'])
    assert 'is a file: give a folder' in said


@pytest.mark.parametrize(
    'place', ['{}/file/below', '/proc/lightvit_mm', '{}/' + 300 * 'x', '{}/loop/below']
)
def test_a_place_that_cannot_be_written(tmp_path, place):
    """Root may write into any folder of a disk, but not below a file or into /proc."""
    (tmp_path / 'file').touch()
    (tmp_path / 'loop').symlink_to('loop')
    place = place.format(tmp_path)
    assert 'cannot be written' in refusal(check_output_folder, place, '--out', ['sign'])
    assert 'cannot be written' in refusal(check_output_file, f'{place}/x', '--out', MARK)[:500]


def test_the_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').touch()
    said = refusal(check_output_folder, tmp_path / 'file/below', '--out', ['sign'])
    assert said.endswith(f'cannot be written: Not a directory ({tmp_path}/file)')


def status_of(action, capsys):
    with pytest.raises(SystemExit) as caught, user_errors():
        action()
    return caught.value.code, capsys.readouterr().err.strip()


def test_a_full_disk_is_an_error_of_the_user(tmp_path, capsys):
    def full():
        with whole_file(tmp_path / 'file') as part:
            part.write_text('half')
            raise OSError(errno.ENOSPC, 'No space left on device')

    status, said = status_of(full, capsys)
    assert status == 2
    assert said == f"error: [Errno 28] No space left on device: '{tmp_path / 'file'}'"
    assert os.listdir(tmp_path) == []
    for number in (errno.ENOSPC, errno.EDQUOT):  # of a library that names no file

        def full_too(number=number):
            raise OSError(number, os.strerror(number))

        assert status_of(full_too, capsys) == (2, f'error: [Errno {number}] {os.strerror(number)}')
    with pytest.raises(OSError, match='of a library'), user_errors():
        raise OSError('of a library')


@pytest.mark.parametrize(
    'number, status, word',
    [(signal.SIGINT, 130, 'interrupted'), (signal.SIGTERM, 143, 'terminated')],
)
@pytest.mark.usefixtures('ctrl_c')
def test_a_signal_removes_the_half_file(tmp_path, capsys, number, status, word):
    write_whole(tmp_path / 'file', 'old')

    def interrupted():
        with whole_file(tmp_path / 'file') as part:
            part.write_text('half')
            os.kill(os.getpid(), number)
            pytest.fail('it went on')

    assert status_of(interrupted, capsys) == (status, word)
    assert os.listdir(tmp_path) == ['file']
    assert (tmp_path / 'file').read_text() == 'old'
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_processes_of_a_group_end_at_once(monkeypatch):
    """They may be waiting for one another, where Python sees no signal."""
    monkeypatch.setenv('RANK', '0')
    with user_errors():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def write_pair(path, text, fail=False):
    with whole_files(path) as part:
        part.with_suffix('.bin').write_text(text)
        part.write_text(text)
        if fail:
            raise OSError(errno.ENOSPC, 'No space left on device')


def test_several_files_appear_together_or_not_at_all(tmp_path):
    path = tmp_path / 'folder/model.xml'
    for fail, kept in ((False, 'old'), (True, 'old'), (False, 'new')):
        (tmp_path / 'folder/model.xml.part').mkdir(parents=True, exist_ok=True)  # of a dead process
        if fail:
            with pytest.raises(OSError, match=r'model\.xml'):
                write_pair(path, 'half', fail=True)
        else:
            write_pair(path, kept)
        content = {file.name: file.read_text() for file in path.parent.iterdir()}
        assert content == {'model.xml': kept, 'model.bin': kept}


def test_no_file_stands_beside_the_parts_of_another(tmp_path, monkeypatch):
    path = tmp_path / 'model.xml'
    write_pair(path, 'old')
    replace, seen = os.replace, []

    def replaced(*arguments):
        replace(*arguments)
        seen.append({file.name: file.read_text() for file in tmp_path.iterdir() if file.is_file()})

    monkeypatch.setattr(os, 'replace', replaced)
    write_pair(path, 'new')
    assert seen == [{'model.bin': 'new'}, {'model.bin': 'new', 'model.xml': 'new'}]
