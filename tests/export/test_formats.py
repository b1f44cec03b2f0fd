"""What each format can be asked for."""

import sys

import pytest

from lightvit_mm.errors import UserError
from lightvit_mm.export.converters import python_with
from lightvit_mm.export.formats import FORMATS, format_of
from lightvit_mm.runtimes.session import RUNTIMES


@pytest.mark.parametrize('form', FORMATS, ids=lambda form: form.name)
def test_the_suffix_says_the_format(form, monkeypatch):
    # As if everything were installed; writing itself is tested with each format.
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    assert format_of(f'a.b/Model{form.suffix.upper()}') is form
    assert callable(form.writer.write)
    assert hasattr(form.writer, 'quantize') == form.int8


def test_other_suffixes_are_refused():
    for name in ('model', 'model.pth', 'onnx'):
        with pytest.raises(UserError, match=rf'OUT {name}: .*\.onnx \(ONNX\), \.xml \(OpenVINO\)'):
            format_of(name)
    assert {form.suffix for form in FORMATS} >= set(RUNTIMES)


def test_a_wrong_combination_says_what_works():
    with pytest.raises(UserError, match=r'--precision fp16 is not possible for ONNX, only for \.x'):
        format_of('model.onnx', 'fp16')
    with pytest.raises(UserError, match=r'--dynamic is not possible for LiteRT, only for \.onnx'):
        format_of('model.tflite', dynamic=True)
    with pytest.raises(UserError, match=r'--full-integer is not possible .* only for \.tflite'):
        format_of('model.xml', int8=True, full_integer=True)


def test_a_missing_package_is_named_with_the_line_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(UserError, match=r'openvino is needed .*pip install openvino .*\[openvino'):
        format_of('model.xml')


def test_a_missing_converter_is_named_with_the_line_to_type():
    with pytest.raises(
        UserError, match=r'not_there is needed .*setup\.sh --with litert2 .*not-there'
    ):
        python_with('not_there', 'litert2')
