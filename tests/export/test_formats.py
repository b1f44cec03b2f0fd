"""What each format can be asked for."""

import sys

import pytest

from lightvit_mm.errors import UserError
from lightvit_mm.export.formats import FORMATS, format_of
from lightvit_mm.runtimes.session import RUNTIMES


def test_the_suffix_says_the_format():
    for form in FORMATS:
        for name in form.packages:
            pytest.importorskip(name, reason=f'not installed: pip install -e ".[{form.extra}]"')
        assert format_of(f'a.b/Model{form.suffix.upper()}') is form
        assert callable(form.writer.write)
        assert callable(form.writer.quantize) == form.int8
    for name in ('model', 'model.pth', 'onnx'):
        with pytest.raises(UserError, match=rf'OUT {name}: .*\.onnx \(ONNX\), \.xml \(OpenVINO\)'):
            format_of(name)
    assert {form.suffix for form in FORMATS} >= set(RUNTIMES)


def test_a_wrong_combination_says_what_works():
    with pytest.raises(UserError, match=r'--precision fp16 is not possible for ONNX, only for \.x'):
        format_of('model.onnx', 'fp16')


def test_a_missing_package_is_named_with_the_line_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(UserError, match=r'openvino is needed .*pip install openvino .*\[openvino'):
        format_of('model.xml')
