"""The doctor: its report on an environment, which every tool prints if the stack is broken."""

import subprocess
import sys

import pytest
from helpers.repository import REPOSITORY

from lightvit_mm import doctor
from lightvit_mm.doctor import BROKEN, NOTE, OK, Line, Probe
from lightvit_mm.errors import StackError, stack_errors, user_errors

ORIGINALS = {
    'torch': '2.13.0+cpu',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
}
FORKS = {
    'torch': '2.13.0+cpu',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
}
TOOLS = sorted(
    file.name for file in (REPOSITORY / 'tools').glob('[a-z]*.py') if file.name != 'build_mmcv.py'
)


class Machine:
    """An environment to examine, healthy unless the test changes it."""

    def __init__(self) -> None:
        self.versions = dict(ORIGINALS)
        self.probed: list[str] = []
        self.probes = {
            'torch': Probe('', doctor.ON_CPU),
            'mmcv.ops': Probe('', doctor.ON_CPU),
            'torchvision': Probe("ModuleNotFoundError: No module named 'torchvision'"),
        }

    def probe(self, names):
        self.probed = list(names)
        return {name: self.probes.get(name, Probe('')) for name in names}

    @property
    def lines(self) -> dict[str, Line]:
        return {line.subject: line for line in doctor.examine()}

    @property
    def ill(self) -> dict[str, Line]:
        return {name: line for name, line in self.lines.items() if line.state != OK}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    machine = Machine()
    monkeypatch.setattr(doctor, 'CHECKOUT', tmp_path)
    monkeypatch.setattr(doctor, 'installed', lambda: machine.versions)
    monkeypatch.setattr(doctor, 'probe', machine.probe)
    monkeypatch.setattr(doctor, 'LOW', 0)
    monkeypatch.setenv('CXX', sys.executable)
    return machine


def test_a_healthy_machine(machine):
    assert machine.ill == {}
    found = {name: line.found for name, line in machine.lines.items()}
    assert found['stack'] == 'openmmlab, the original releases'
    assert found['torch'] == 'torch 2.13.0+cpu, for the CPU'
    assert found['mmcv.ops'] == 'mmcv 2.1.0, for the CPU'
    assert found['mmseg'] == 'mmsegmentation 1.2.2'
    assert found['torchvision'] == 'not installed, and not needed'
    assert found['compiler'] == sys.executable
    assert list(found) == [
        'Python', 'stack', 'torch', 'mmengine', 'mmcv', 'mmcv.ops', 'mmdet', 'mmseg', 'onnx',
        'pkg_resources', 'torchvision', 'disk', 'compiler',
    ]  # fmt: skip


def test_the_forks_need_no_pkg_resources(machine):
    missing = Probe("ModuleNotFoundError: No module named 'pkg_resources'")
    machine.probes['pkg_resources'] = missing
    assert machine.ill == {
        'pkg_resources': Line(
            'pkg_resources', BROKEN, 'not installed, and mmengine needs it',
            "pip install 'setuptools<82'",
        ),
    }  # fmt: skip
    machine.versions = {**FORKS, 'torch': '2.15.0'}
    assert machine.ill == {}
    assert machine.lines['stack'].found == 'onedl, the maintained forks'
    assert machine.lines['mmdet'].found == 'onedl-mmdetection 3.5.1'


@pytest.mark.parametrize(
    ('more', 'named'),
    [
        (
            {'onedl-mmcv': '2.3.6'},
            'mmcv 2.1.0, mmdet 3.3.0, mmengine 0.10.7, mmsegmentation 1.2.2, onedl-mmcv 2.3.6',
        ),
        (
            {'mmcv-lite': '2.1.0'},
            'mmcv 2.1.0, mmcv-lite 2.1.0, mmdet 3.3.0, mmengine 0.10.7, mmsegmentation 1.2.2',
        ),
    ],
    ids=['fork', 'lite'],
)
def test_a_mixed_stack_is_named_and_not_imported(machine, more, named):
    machine.versions |= more
    names = ' '.join(part.split()[0] for part in named.split(', '))
    assert machine.ill['stack'] == Line(
        'stack',
        BROKEN,
        f'mixed, they overwrite one another: {named}',
        f'pip uninstall -y {names}; bash tools/setup.sh [--stack onedl]',
    )
    assert machine.ill['mmseg'].found == 'mmsegmentation 1.2.2, not tried: fix stack first'
    assert machine.probed == ['torch']
    assert machine.lines['torch'].state == OK


@pytest.mark.parametrize(
    ('name', 'version', 'subject', 'wants'),
    [
        ('mmcv', '2.2.0', 'mmcv', 'this needs 2.1.0 or later, before 2.2.0'),
        ('mmcv', '2.0.1', 'mmcv', 'this needs 2.1.0 or later, before 2.2.0'),
        ('mmengine', '0.10.5', 'mmengine', 'this needs 0.10.7 or later'),
        ('torch', '2.3.1+cu121', 'torch', 'this needs 2.4 or later'),
        ('mmdet', '3.0.0rc6', 'mmdet', 'this needs 3.3.0 or later'),
    ],
)
def test_versions_that_refuse_each_other(machine, name, version, subject, wants):
    machine.versions[name] = version
    line = machine.ill[subject]
    assert line == Line(subject, BROKEN, f'{name} {version}, but {wants}', 'bash tools/setup.sh')
    assert next(iter(machine.ill)) == subject


@pytest.mark.parametrize(
    ('subject', 'why', 'cure'),
    [
        ('mmcv.ops', "ModuleNotFoundError: No module named 'mmcv._ext'", 'bash tools/setup.sh'),
        (
            'mmseg',
            "ModuleNotFoundError: No module named 'ftfy'",
            'pip install -r tools/requirements.txt',
        ),
        (
            'mmdet',
            'RuntimeError: operator torchvision::nms does not exist',
            'pip uninstall -y torchvision',
        ),
        (
            'mmcv',
            'ImportError: libGL.so.1: cannot open shared object file',
            'pip install --force-reinstall --no-deps opencv-python-headless',
        ),
    ],
)
def test_what_helps_an_import_that_fails(machine, subject, why, cure):
    machine.probes[subject] = Probe(f'{why}\nand more')
    line = machine.ill[subject]
    assert line.state == BROKEN
    assert line.found.endswith(f' fails: {why}')
    assert line.cure == cure


def test_only_the_first_cause_is_blamed(machine):
    machine.probes = dict.fromkeys(doctor.MODULES, Probe('ImportError: no'))
    found = [line.found for line in machine.ill.values()]
    assert found == [
        'torch 2.13.0+cpu fails: ImportError: no',
        'mmengine 0.10.7, not tried: fix torch first',
        'mmcv 2.1.0, not tried: fix mmengine first',
        'mmcv 2.1.0, not tried: fix mmcv first',
        'mmdet 3.3.0, not tried: fix mmcv.ops first',
        'mmsegmentation 1.2.2, not tried: fix mmcv.ops first',
    ]


def test_backbones_alone(machine):
    del machine.versions['mmcv'], machine.versions['mmdet'], machine.versions['mmsegmentation']
    machine.versions['mmcv-lite'] = '2.1.0'
    machine.probes['onnx'] = Probe("ModuleNotFoundError: No module named 'onnxscript'")
    assert {name: (line.state, line.found) for name, line in machine.ill.items()} == {
        'mmcv.ops': (NOTE, 'not installed'),
        'mmdet': (NOTE, 'not installed'),
        'mmseg': (NOTE, 'not installed'),
        'onnx': (NOTE, 'not installed; for tools/export.py'),
    }


def test_an_environment_that_was_not_entered(machine, tmp_path):
    machine.versions = {}
    assert machine.ill['torch'] == Line('torch', BROKEN, 'not installed', 'bash tools/setup.sh')
    stamp = tmp_path / '.venv-onedl/lightvit_mm/stamp'
    stamp.parent.mkdir(parents=True)
    stamp.touch()
    assert machine.ill['torch'].cure == 'source .venv-onedl/bin/activate'
    assert machine.ill['stack'].found == 'no package of OpenMMLab is installed'


def test_a_gpu_beside_operators_for_the_cpu(machine, monkeypatch):
    machine.versions = FORKS
    machine.probes['torch'] = Probe('', 'for NVIDIA H100')
    assert machine.ill == {
        'mmcv.ops': Line(
            'mmcv.ops',
            NOTE,
            'compiled for the CPU only, and torch is for NVIDIA H100',
            'pip uninstall -y onedl-mmcv; bash tools/setup.sh --stack onedl',
        )
    }
    monkeypatch.setattr(doctor, 'INSTALLED', True)
    assert 'pip cache remove onedl-mmcv; with nvcc on the PATH: ' in machine.ill['mmcv.ops'].cure
    machine.probes['mmcv.ops'] = Probe('', 'for CUDA 12.8')
    assert machine.ill == {}


def test_operators_for_other_gpus(machine):
    machine.probes['torch'] = Probe('', 'for NVIDIA L4')
    machine.probes['mmcv.ops'] = Probe('AcceleratorError: CUDA error: no kernel image is available')
    assert machine.ill['mmcv.ops'].state == BROKEN
    assert machine.ill['mmcv.ops'].cure == (
        'unset TORCH_CUDA_ARCH_LIST; pip uninstall -y mmcv; bash tools/setup.sh'
    )


@pytest.mark.parametrize(
    ('device', 'cure'),
    [
        ('for the CPU', 'pip uninstall -y torch mmcv; bash tools/setup.sh'),
        ('for CUDA 13.0, which finds no GPU', 'update it'),
    ],
)
def test_a_gpu_that_torch_does_not_use(machine, monkeypatch, tmp_path, device, cure):
    machine.probes['torch'] = Probe('', device)
    assert machine.ill == {}
    smi = tmp_path / 'nvidia-smi'
    smi.write_text('#!/bin/sh\necho "GPU 0: NVIDIA L4 (UUID: GPU-1)"')
    smi.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    (line,) = machine.ill.values()
    assert (line.subject, line.state) == ('torch', NOTE)
    assert line.found == f'torch 2.13.0+cpu, {device}; nvidia-smi lists a GPU'
    assert cure in line.cure


def test_a_torchvision_that_cannot_be_imported(machine):
    machine.probes['torchvision'] = Probe('RuntimeError: operator torchvision::nms does not exist')
    assert machine.ill['torchvision'].state == BROKEN
    assert machine.ill['torchvision'].cure == 'pip uninstall -y torchvision'


@pytest.mark.parametrize(('free', 'state'), [(4e8, NOTE), (1e7, BROKEN), (2e9, OK)])
def test_disk(machine, monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(doctor, 'LOW', 1e9)
    monkeypatch.setattr(doctor.tempfile, 'gettempdir', lambda: str(tmp_path))
    usage = type('Usage', (), {})
    monkeypatch.setattr(
        doctor.shutil,
        'disk_usage',
        lambda path: (setattr(usage, 'free', free if path == str(tmp_path) else 5e9), usage)[1],
    )
    line = machine.lines['disk']
    assert (line.state, line.found) == (state, f'{free / 1e9:.1f} GB free in {tmp_path}')


def test_no_compiler_and_another_python(machine, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler -O1')
    monkeypatch.setattr(doctor, 'PYTHONS', ((3, 8), (3, 9)))
    assert machine.ill['compiler'].state == NOTE
    assert machine.ill['compiler'].found.startswith('no no-such-compiler;')
    assert machine.ill['Python'].found.endswith('; 3.8 to 3.9 work')
    assert machine.ill['Python'].cure == 'PYTHON=python3.9 bash tools/setup.sh'


def test_the_status_is_that_of_what_is_broken(machine, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['doctor'])
    assert doctor.main() == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'nothing is broken'
    del machine.versions['mmdet']
    assert doctor.main() == 0
    assert 'note     mmdet          not installed' in capsys.readouterr().out
    machine.versions['mmcv'] = '2.2.0'
    assert doctor.main() == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == '3 broken: begin at the top'
    place = said.index(
        'broken   mmcv           mmcv 2.2.0, but this needs 2.1.0 or later, before 2.2.0'
    )
    assert said[place + 1].strip() == '-> bash tools/setup.sh'


def write(folder, files):
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_imports_in_another_process(monkeypatch, tmp_path):
    write(
        tmp_path,
        {
            'torch.py': 'class cuda:\n is_available = get_device_name = staticmethod(lambda: "A1")',
            'mmengine/__init__.py': '',
            'mmengine/runner.py': 'print("lightvit_mm")\nraise AssertionError("MMCV==2.2.0")',
            'mmcv/__init__.py': '',
            'mmcv/cnn.py': 'import os, signal\nos.kill(os.getpid(), signal.SIGKILL)',
            'mmdet/__init__.py': '',
            'mmdet/apis.py': 'import os\nos._exit(7)',
            'mmseg/__init__.py': '',
            'mmseg/apis.py': 'raise SystemExit("bye")',
        },
    )
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    assert doctor.probe(['torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg']) == {
        'torch': Probe('', 'for A1'),
        'mmengine': Probe('AssertionError: MMCV==2.2.0'),
        'mmcv': Probe('Python ended with SIGKILL'),
        'mmdet': Probe('Python ended with exit status 7'),
        'mmseg': Probe('SystemExit: bye'),
    }


def test_installed_reads_the_metadata(monkeypatch, tmp_path):
    metadata = 'Metadata-Version: 2.1\nName: onedl-mmdetection\nVersion: 9.8.7\n'
    write(tmp_path, {'onedl_mmdetection-9.8.7.dist-info/METADATA': metadata})
    monkeypatch.syspath_prepend(tmp_path)
    found = doctor.installed()
    assert found['onedl-mmdetection'] == '9.8.7'
    assert 'torch' in found
    assert 'mmcv-full' not in found


def test_only_failures_of_an_import_are_explained(machine, monkeypatch, tmp_path):
    why = 'operator torchvision::nms does not exist'
    write(tmp_path, {'torchvision.py': f'raise RuntimeError({why!r})'})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'torchvision', raising=False)
    machine.probes['torchvision'] = Probe(f'RuntimeError: {why}')
    with pytest.raises(StackError) as told, stack_errors():
        import torchvision  # noqa: F401
    assert str(told.value).splitlines() == [
        f'RuntimeError: {why}',
        f'broken   torchvision    fails: RuntimeError: {why}',
        '                        -> pip uninstall -y torchvision',
        'All: python -m lightvit_mm.doctor',
    ]
    with pytest.raises(AssertionError, match='not an import'), stack_errors():
        raise AssertionError('not an import')
    with pytest.raises(ImportError, match='ours') as ours, stack_errors():
        raise ImportError('ours', name='lightvit_mm.engine')
    assert not isinstance(ours.value, StackError)


def test_what_the_doctor_finds_nothing_in_stays_as_it_is(machine):
    with pytest.raises(ModuleNotFoundError, match='no_such_module'), stack_errors():
        import no_such_module  # noqa: F401


def test_a_lazy_import_that_fails_ends_a_tool_without_a_traceback(machine, capsys):
    del machine.versions['mmdet']
    with pytest.raises(SystemExit) as end, user_errors():
        raise ModuleNotFoundError("No module named 'mmdet'", name='mmdet')
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        "error: ModuleNotFoundError: No module named 'mmdet'",
        'note     mmdet          not installed',
        '                        -> bash tools/setup.sh',
        'All: python -m lightvit_mm.doctor',
    ]


@pytest.fixture(scope='module')
def broken_stack(tmp_path_factory):
    """A folder that takes torch's place, and makes the stack a mixed one."""
    folder = tmp_path_factory.mktemp('broken')
    metadata = 'Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n'
    write(
        folder,
        {
            'torch.py': "raise ImportError('libtorch_cpu.so: no such file', name='torch')",
            'mmcv-1.0.dist-info/METADATA': metadata.format('mmcv'),
            'onedl_mmcv-1.0.dist-info/METADATA': metadata.format('onedl-mmcv'),
        },
    )
    return folder


def run(broken_stack, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env={'PYTHONPATH': str(broken_stack), 'PATH': ''},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize('tool', TOOLS)
def test_every_tool_lets_the_doctor_speak(broken_stack, tool):
    done = run(broken_stack, f'tools/{tool}', '--help')
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    said = done.stderr.splitlines()
    assert said[1] == 'error: ImportError: libtorch_cpu.so: no such file'
    assert said[2].startswith('broken   stack          mixed, they overwrite one another: mmcv 1.0')
    assert any(line.endswith('fails: ImportError: libtorch_cpu.so: no such file') for line in said)
    assert said[-1] == 'All: python -m lightvit_mm.doctor'


def test_the_doctor_runs_where_the_package_cannot_be_imported(broken_stack):
    done = run(broken_stack, '-m', 'lightvit_mm.doctor')
    assert (done.returncode, done.stderr) == (1, '')
    said = done.stdout.splitlines()
    assert said[0].startswith('ok       Python')
    assert said[1].startswith('broken   stack          mixed')
    assert said[-1].endswith('broken: begin at the top')
    failed = run(broken_stack, '-c', 'import lightvit_mm')
    assert failed.returncode == 1
    assert 'StackError: ImportError: libtorch_cpu.so: no such file' in failed.stderr
