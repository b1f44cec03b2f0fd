"""Opening exported files."""

import sys

import pytest

from lightvit_mm.errors import UserError
from lightvit_mm.runtimes.session import RUNTIMES, open_file, suffix_of


@pytest.mark.parametrize('suffix', RUNTIMES)
def test_files_that_cannot_be_opened(suffix, tmp_path, monkeypatch):
    runtime = pytest.importorskip(RUNTIMES[suffix], reason=f'{RUNTIMES[suffix]} is not installed')
    assert suffix_of(f'Model{suffix.upper()}') == suffix
    file = tmp_path / f'model{suffix}'
    with pytest.raises(UserError, match=r'does not exist; tools/export\.py creates'):
        open_file(file)
    file.write_text('no graph')
    with pytest.raises(UserError, match=f'is not a file that {runtime.__name__} can run: .'):
        open_file(file)
    monkeypatch.setitem(sys.modules, runtime.__name__, None)
    with pytest.raises(UserError, match=f'pip install {runtime.__name__}'):
        open_file(file)


def test_other_files_are_refused():
    assert suffix_of('model.pth') is None
    with pytest.raises(UserError, match=r'model\.pth is no exported file; those end in \.onnx'):
        open_file('model.pth')
    with pytest.raises(UserError, match=r'model\.mlpackage: .* Apple devices only; give .*\.onnx'):
        suffix_of('model.mlpackage')
