"""Names and colours of classes from JSON and text files."""

import json

import pytest

from lightvit_mm.data.classes_file import read_classes
from lightvit_mm.errors import UserError


def test_json(tmp_path):
    file = tmp_path / 'classes.json'
    content = {
        'classes': ['land', 'open water'],
        'palette': [[132, 41, 246], [0, 0, 255]],
        'ignore_index': 255,
        'img_suffix': '.jpg',
    }
    file.write_text(json.dumps(content))
    classes = read_classes(file)
    assert classes.names == ('land', 'open water')
    assert classes.palette == [(132, 41, 246), (0, 0, 255)]
    assert not classes.reduce_zero_label
    file.write_text(json.dumps({'classes': ['a', 'b'], 'reduce_zero_label': True}))
    assert read_classes(file) == (('a', 'b'), None, True)


def test_text(tmp_path):
    file = tmp_path / 'classes.txt'
    file.write_text('\ufeff# of the survey\nland 132 41 246\n\nopen water  0 0 255\n', 'utf-8')
    assert read_classes(file) == (('land', 'open water'), [(132, 41, 246), (0, 0, 255)], False)
    file.write_text('zone 1\nzone 2\n')
    assert read_classes(file) == (('zone 1', 'zone 2'), None, False)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', r'has 0 class.es.'),
        ('nucleus', 'the background is a class too: list it first'),
        ('a\nb\na', 'classes of the same name: a'),
        ('a 1 2 3\nb 1 2 3', r'classes of the same colour: \(1, 2, 3\)'),
        ('a 1 2 3\nb', '1 of 2 lines have a colour'),
        ('a 1 2 300\nb 1 2 3', 'numbers from 0 to 255; expected JSON'),
        ('\n'.join(f'zone {number}' for number in range(256)), r'has 256 class.*2 to 255'),
        ('["a", "b"]', 'not an object with a list "classes"'),
        ('{"classes": ["a", "b"', 'expected JSON'),
        ('{"classes": {"a": 0}}', '"classes" is not a list of names'),
        ('{"classes": ["a", ""]}', '"classes" is not a list of names'),
        ('{"classes": ["a", "b"], "palette": [[1, 2, 3]]}', 'not a list of 2 colours'),
        ('{"classes": ["a", "b"], "palette": [[1, 2, 3], [1, 2]]}', r'\[1, 2\] is not a colour'),
        ('{"classes": ["a", "b"], "palette": [[1, 2, 3], "red"]}', "'red' is not a colour"),
        ('{"classes": ["a", "b"], "reduce_zero_label": 1}', 'is 1, not true or false'),
        ('{"classes": ["a", "b"], "ignore_index": 0}', 'is 0, but .* must have the label 255'),
        ('{"images": [], "categories": []}', 'it is a COCO file, which is for detectors'),
    ],
)
def test_what_cannot_be_used(tmp_path, text, said):
    (tmp_path / 'classes').write_text(text)
    with pytest.raises(UserError, match=f'--classes-from .*classes.*{said}'):
        read_classes(tmp_path / 'classes')


def test_no_text_and_no_file(tmp_path):
    (tmp_path / 'classes.png').write_bytes(b'\x89PNG')
    with pytest.raises(UserError, match='expected JSON'):
        read_classes(tmp_path / 'classes.png')
    with pytest.raises(UserError, match='there is no such file'):
        read_classes(tmp_path / 'absent.json')
