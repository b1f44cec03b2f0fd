"""The wheel, in a fresh environment that has the stack and no checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers.doc_pages import blocks
from helpers.repository import REPOSITORY

from lightvit_mm.__main__ import COMMANDS

pytestmark = pytest.mark.slow

# Tools that write into a checkout, or set one up.
NOT_CARRIED = {'build_mmcv', 'choose', 'gpu_check', 'model_zoo'}
QUICK = ('--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
# docs/install.md: a base after an import of the package, a base that imports it, mmengine.hub.
AFTER, IMPORTING, HUB = blocks(REPOSITORY / 'docs/install.md', 'python')
BASE = 'retinanet_repvit_m0_9_coco'
SHORT = """
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command as a user of the fresh environment would, and return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """A copy of the checkout to build in, since a build leaves files."""
    copy = tmp_path_factory.mktemp('source') / 'lightvit_mm'
    copy.mkdir()
    for name in ('lightvit_mm', 'configs', 'tools'):
        shutil.copytree(
            REPOSITORY / name,
            copy / name,
            symlinks=True,
            ignore=shutil.ignore_patterns('__pycache__'),
        )
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml'):
        shutil.copy(REPOSITORY / name, copy)
    return copy


def build(source: Path, kind: str) -> Path:
    """Build a wheel or an sdist, as pip does, with the setuptools of this environment."""
    code = f'from setuptools.build_meta import build_{kind} as build; build("dist")'
    run(sys.executable, '-c', code, cwd=source)
    (made,) = (source / 'dist').glob('*.whl' if kind == 'wheel' else '*.tar.gz')
    return made


@pytest.fixture(scope='module')
def wheel(source) -> Path:
    return build(source, 'wheel')


@pytest.fixture(scope='module')
def bin_folder(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel, where the stack is this environment's."""
    place = tmp_path_factory.mktemp('fresh')
    run(sys.executable, '-m', 'venv', '--without-pip', 'venv', cwd=place)
    (packages,) = place.glob('venv/lib/*/site-packages')
    stack = [path for path in sys.path if Path(path).name in ('site-packages', 'dist-packages')]
    assert stack
    # Folders that a .pth file adds are searched last, and their own .pth files, of which one is
    # that of the editable install, are not read.
    (packages / 'stack.pth').write_text('\n'.join(stack))
    pip = (sys.executable, '-m', 'pip', '--python', 'venv/bin/python')
    run(*pip, 'install', '--no-deps', '--no-index', '--no-compile', wheel, cwd=place)
    return place / 'venv/bin'


@pytest.fixture(scope='module')
def folder(bin_folder, tmp_path_factory) -> Path:
    """Somewhere else, with a small data set."""
    place = tmp_path_factory.mktemp('elsewhere')
    made = run(
        bin_folder / 'lightvit-mm',
        *('make-shapes', 'data/shapes', '--train', '8', '--val', '4'),
        cwd=place,
    )
    assert '8 train' in made
    return place


def test_contents(wheel):
    carried = {name.partition('/.mim/')[2] for name in names(wheel) if '/.mim/' in name}
    configs = {
        str(file.relative_to(REPOSITORY))
        for pattern in ('*.py', '*.yml', '_base_/*.py')
        for file in (REPOSITORY / 'configs').glob(pattern)
    }
    tools = {f'tools/{file}' for file in ('_stack.py', *COMMANDS.values())}
    assert carried == {'model-index.yml', *configs, *tools}
    others = {name for name in names(wheel) if '/.mim/' not in name and '.dist-info/' not in name}
    assert others >= {'lightvit_mm/py.typed', 'lightvit_mm/reporting/report.html'}
    assert all(name.startswith('lightvit_mm/') for name in others)
    assert {Path(name).suffix for name in others} == {'.py', '.typed', '.html'}


def test_every_tool_is_a_command():
    tools = {file.stem for file in (REPOSITORY / 'tools').glob('[a-z]*.py')}
    assert {Path(file).stem for file in COMMANDS.values()} == tools - NOT_CARRIED, (
        'a tool is a command in lightvit_mm/__main__.py, or in FOR_CHECKOUTS of setup.py'
    )


def test_an_sdist_builds_the_same_wheel(source, wheel, tmp_path):
    with tarfile.open(build(source, 'sdist')) as archive:
        archive.extractall(tmp_path, filter='data')
    (unpacked,) = tmp_path.iterdir()
    assert names(build(unpacked, 'wheel')) == names(wheel)


def test_configs_by_name(bin_folder, folder):
    (folder / 'after.py').write_text(AFTER)
    (folder / 'part.py').write_text("_base_ = 'lightvit_mm::_base_/schedule_1x.py'\n")
    (folder / 'theirs.py').write_text("_base_ = 'mmdet::_base_/default_runtime.py'\n")
    (folder / 'segment.py').write_text(IMPORTING.replace(BASE, 'upernet_repvit_m1_1_ade20k'))
    checks = """
import contextlib
import io
import runpy
import sys
from pathlib import Path

import mmseg

from lightvit_mm.errors import UserError, user_errors
from mmengine.config import Config

with contextlib.suppress(SystemExit), contextlib.redirect_stderr(sys.stdout), user_errors():
    raise UserError('python tools/check_data.py X; tools/export.py; bash tools/setup.sh')
assert Config.fromfile('after.py').model == config.model
assert '_scope_' not in str(config.model)
assert Config.fromfile('part.py').train_cfg.max_epochs == 12
assert Config.fromfile('theirs.py').default_scope == 'mmdet'
assert get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py').model.type == 'RetinaNet'
start = dict(type='Constant', layer='Conv2d', val=0.5)
segmentor = get_model('lightvit_mm::semantic_fpn_efficientvit_m0_ade20k', init_cfg=start)
assert segmentor.init_cfg == start
print(type(model).__name__, model.backbone.out_channels, type(segmentor).__name__)
for wrong in (('lightvit_mm::retinanet_repvit_m0_9_coco', True), ('lightvit_mm::retinanet', False)):
    try:
        get_model(*wrong)
    except lightvit_mm.errors.UserError as error:
        print(error)
sys.argv = ['print_config.py', 'segment.py']
with contextlib.redirect_stdout(io.StringIO()) as printed:
    tool = Path(mmseg.__file__).parent / '.mim/tools/misc/print_config.py'
    runpy.run_path(str(tool), run_name='__main__')
assert "arch='m1_1'" in printed.getvalue()
print(lightvit_mm.__file__)
"""
    download = 'model.init_weights()'
    assert download in HUB
    code = HUB.replace(download, '') + checks
    *said, built, untrained, misspelt, file = run(
        bin_folder / 'python', '-c', code, cwd=folder
    ).splitlines()
    assert "error: lightvit-mm check-data X; lightvit-mm export; pip install 'setuptools" in str(
        said
    )
    assert built == 'RetinaNet (48, 96, 192, 384) EncoderDecoder'
    assert 'no weights trained with this config have been released' in untrained
    assert 'lightvit_mm::retinanet does not exist; did you mean retinanet_' in misspelt
    assert Path(file).is_relative_to(bin_folder.parent)


def test_a_base_in_the_tools_of_mmdet(bin_folder, folder):
    import mmdet

    assert BASE in IMPORTING
    mine = IMPORTING.replace(BASE, 'retinanet_edgevit_xxs_shapes') + SHORT
    (folder / 'mine.py').write_text(mine)
    tools = Path(mmdet.__file__).parent / '.mim/tools'
    log = run(bin_folder / 'python', tools / 'train.py', 'mine.py', cwd=folder)
    assert (folder / 'work_dirs/mine/epoch_1.pth').is_file(), log


def test_the_command(bin_folder, folder):
    def command(*arguments: str) -> str:
        return run(bin_folder / 'lightvit-mm', *arguments, cwd=folder)

    installed = set(bin_folder.parent.rglob('*'))
    page = command('--help')
    assert len(page.splitlines()) < 30
    assert all(f'\n  {name} ' in page for name in COMMANDS)
    assert 'retinanet_repvit_m0_9_coco' in command('list', 'm0_9')
    assert 'upernet' not in command('list', 'retinanet_*_coco')
    config = 'retinanet_edgevit_xxs_shapes'
    command('train', config, *QUICK, 'default_hooks.checkpoint.interval=1')
    checkpoint = f'work_dirs/{config}/epoch_1.pth'
    photo = str(next((folder / 'data/shapes/images/val').iterdir()))
    assert '1 pictures in out' in command('predict', config, checkpoint, photo, '--out', 'out')
    assert 'nothing is broken' in command('doctor')
    written = set(bin_folder.parent.rglob('*')) - installed
    assert not [path for path in written if '__pycache__' not in path.parts]


def test_the_doctor_without_a_stack(bin_folder, folder):
    """The command runs, and what it advises needs no checkout."""
    (packages,) = bin_folder.parent.glob('lib/*/site-packages')
    code = f"""if True:
        import sys
        sys.path.append({str(packages)!r})  # -S leaves its .pth file out
        sys.argv = ['lightvit-mm', {{}}]
        from lightvit_mm.__main__ import main
        sys.exit(main())
    """
    for word, status in (('doctor', 1), ('train', 2)):
        done = subprocess.run(
            [bin_folder / 'python', '-S', '-c', code.format(repr(word))],
            cwd=folder,
            env={**os.environ, 'PYTHONPATH': ''},
            capture_output=True,
            text=True,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, said
        assert 'Traceback' not in said
        assert "pip install --no-build-isolation 'lightvit_mm[mmdet,mmseg]'" in said
        assert 'tools/' not in said


def test_completion(bin_folder, folder):
    script = run(bin_folder / 'lightvit-mm', 'completion', 'bash', cwd=folder)
    completed = (
        script
        + 'complete_() { COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _lightvit_mm; '
        + 'echo "${COMPREPLY[@]}"; }\n'
        + 'complete_ lightvit-mm tr; complete_ lightvit-mm train retinanet_edgevit_x; '
        + 'complete_ lightvit-mm train --no'
    )
    commands, configs, options = run('bash', '-c', completed, cwd=folder).split('\n')[:3]
    assert commands == 'train'
    found = [f'retinanet_edgevit_{x}' for x in ('xs_coco', 'xxs_coco', 'xxs_shapes')]
    assert configs.split() == found
    assert options == ''
