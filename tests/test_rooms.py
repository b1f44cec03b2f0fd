"""The order of the package's rooms: imports go downwards only, and never in a circle.

The imports are read from the sources, those inside functions included. Nothing is imported.
"""

import ast
import graphlib
from pathlib import Path

import pytest
from helpers.repository import REPOSITORY

PACKAGE = 'lightvit_mm'
# From top to bottom. The rooms of a line import from the lines below it and not from each other.
ROOMS = (
    ('__main__',),
    ('benchmark', 'reporting'),
    ('reproduction', 'export'),
    ('engine', 'adapters'),
    ('classification',),
    ('backbones',),
    ('checkpoints',),
    ('layers', 'necks', 'heads', 'data', 'runtimes'),
    ('measure', 'shapes'),
    ('files', 'errors', 'registry', 'doctor', 'carried', 'commands', 'timm_import'),
)
# These are single modules that may import each other.
SINGLE_MODULES = ROOMS[-1]
LINES = {room: number for number, line in enumerate(ROOMS) for room in line}

Imports = dict[str, set[str]]


def read_imports(root: Path) -> Imports:
    """The modules of the package at ``root`` that each of its modules imports.

    The package itself, ``lightvit_mm/__init__.py``, is left out: it may import everything, and
    importing any module runs it first.
    """
    files = {}
    for file in sorted(root.rglob('*.py')):
        parts = file.relative_to(root.parent).with_suffix('').parts
        files['.'.join(parts).removesuffix('.__init__')] = file
    imports = {}
    for module, file in files.items():
        base = module.split('.') if file.stem == '__init__' else module.split('.')[:-1]
        names = imported_names(ast.parse(file.read_text()), base)
        imports[module] = {owner for name in names if (owner := owning_module(name, files))}
    del imports[PACKAGE]
    return {module: found - {module, PACKAGE} for module, found in imports.items()}


def imported_names(tree: ast.Module, base: list[str]) -> set[str]:
    """The absolute names that a module of the package ``base`` imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = base[: len(base) + 1 - node.level] if node.level else []
            source = '.'.join([*parents, *filter(None, [node.module])])
            names |= {f'{source}.{alias.name}' for alias in node.names}
        elif isinstance(node, ast.Call) and 'import' in ast.unparse(node.func):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return {name for name in names if isinstance(name, str)}


def owning_module(name: str, files: dict[str, Path]) -> str | None:
    """``name`` if it is a module of the package, else the module that it is an attribute of."""
    if name in files:
        return name
    parent = name.rpartition('.')[0]
    return parent if parent in files else None


def room_of(module: str) -> str:
    return module.split('.')[1]


def check_lines(imports: Imports) -> list[str]:
    """What breaks the order of `ROOMS`, one line per import."""
    wrong = []
    for module, found in sorted(imports.items()):
        room = room_of(module)
        for other in sorted(found):
            other_room = room_of(other)
            if room == other_room or not {room, other_room} <= set(LINES):
                continue  # check_rooms reports those that are not in the list
            singles = room in SINGLE_MODULES and other_room in SINGLE_MODULES
            if not singles and LINES[room] >= LINES[other_room]:
                wrong.append(f'{module} imports {other}, which is not on a lower line')
    return wrong


def check_rooms(imports: Imports) -> list[str]:
    """Rooms that `ROOMS` does not list, and those that it lists and the package lacks."""
    there = {room_of(module) for module in imports}
    return [
        *(
            f'{PACKAGE}/{room} is new: add it to ROOMS in tests/test_rooms.py, on a line above '
            'everything that it imports and below everything that imports it'
            for room in sorted(there - set(LINES))
        ),
        *(
            f'{PACKAGE}/{room} is gone: remove it from ROOMS in tests/test_rooms.py'
            for room in sorted(set(LINES) - there)
        ),
    ]


def find_cycle(imports: Imports) -> list[str]:
    """The modules of a circle of imports, if there is one."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope='module')
def imports() -> Imports:
    return read_imports(REPOSITORY / PACKAGE)


def test_every_room_is_in_the_list(imports):
    assert check_rooms(imports) == []


def test_imports_go_downwards(imports):
    assert check_lines(imports) == []


def test_no_module_imports_itself_through_others(imports):
    assert find_cycle(imports) == []


def test_each_paper_stands_alone(imports):
    """families.py lists the papers' modules, which share pyramid.py and not each other."""
    room = f'{PACKAGE}.backbones'
    pyramid, families = f'{room}.pyramid', f'{room}.families'
    papers = {name for name in imports[families] if room_of(name) == 'backbones'} - {pyramid}
    assert len(papers) >= 6
    assert not {name for name in imports[pyramid] if room_of(name) == 'backbones'}
    for paper in papers:
        assert pyramid in imports[paper]
        assert not imports[paper] & {room, families, *papers}


def write_package(root: Path, sources: dict[str, str]) -> Imports:
    for name, source in {'__init__.py': '', **sources}.items():
        file = root / PACKAGE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return read_imports(root / PACKAGE)


@pytest.mark.parametrize(
    'source',
    [
        'from lightvit_mm.engine import running',
        'from lightvit_mm.engine.running import train',
        'import lightvit_mm.engine.running',
        'from ..engine.running import train',
        'from .. import engine',
        'from lightvit_mm import engine',
        'def later():\n    from lightvit_mm.engine.running import train',
        "import importlib\nimportlib.import_module('lightvit_mm.engine.running')",
    ],
)
def test_an_import_upwards_is_found(source, tmp_path):
    imports = write_package(
        tmp_path,
        {
            'engine/__init__.py': '',
            'engine/running.py': 'from lightvit_mm.layers import fold',
            'layers/__init__.py': '',
            'layers/fold.py': 'import torch\nfrom lightvit_mm.errors import UserError',
            'errors.py': '',
        },
    )
    assert check_lines(imports) == []
    assert find_cycle(imports) == []
    imports = write_package(tmp_path, {'layers/mlp.py': source})
    (wrong,) = check_lines(imports)
    assert wrong.startswith('lightvit_mm.layers.mlp imports lightvit_mm.engine')


def test_an_import_along_a_line_is_found(tmp_path):
    sources = {
        'layers/__init__.py': '',
        'data/split.py': 'from lightvit_mm.layers import Mlp',
        'errors.py': 'def explain():\n    from lightvit_mm import doctor',
        'doctor.py': '',
    }
    (wrong,) = check_lines(write_package(tmp_path, sources))
    assert wrong.startswith('lightvit_mm.data.split imports lightvit_mm.layers')


def test_a_circle_and_an_unknown_room_are_found(tmp_path):
    sources = {
        'engine/running.py': 'from lightvit_mm.engine.hooks import Hook',
        'engine/hooks.py': 'def later():\n    from lightvit_mm.engine import running',
        'attic/old.py': '',
    }
    imports = write_package(tmp_path, sources)
    assert set(find_cycle(imports)) == {'lightvit_mm.engine.running', 'lightvit_mm.engine.hooks'}
    assert any('lightvit_mm/attic is new: add it to ROOMS' in line for line in check_rooms(imports))
    assert any('lightvit_mm/data is gone' in line for line in check_rooms(imports))
