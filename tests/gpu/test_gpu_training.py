"""A training is killed, resumed, stopped at the end of its time, and taken up by the next call."""

import subprocess
import sys
import time

import pytest
from gpu import training
from gpu.context import Context, Settings
from gpu.record import Check, Skipped
from gpu.training import EPOCHS, INTERVAL, train

# What the train command leaves in its folder, one epoch of 100 steps in a tenth of a second.
TRAINER = """
import json, sys, time, zipfile
from pathlib import Path
folder, resume, epochs, interval, last = Path(sys.argv[1]), *map(int, sys.argv[2:])
def epoch_of(path):
    return int(path.stem.split('_')[1])
done = max(map(epoch_of, folder.glob('epoch_*.pth')), default=0) if resume else 0
log = folder / f'{time.time_ns()}/vis_data/scalars.json'
log.parent.mkdir(parents=True)
for epoch in range(done + 1, epochs + 1):
    time.sleep(0.1)
    entries = [{'loss': 1 / epoch, 'lr': 1, 'time': 0.1, 'data_time': 0, 'memory': 1}]
    entries[0] |= {'step': 100 * epoch, 'epoch': epoch}
    if epoch % interval == 0:
        entries.append({'coco/bbox_mAP': epoch / 100, 'step': epoch})
    with log.open('a') as file:
        file.writelines(json.dumps(entry) + chr(10) for entry in entries)
    with zipfile.ZipFile(folder / 'part', 'w') as archive:
        archive.writestr('a', b'')
    (folder / 'part').rename(folder / f'epoch_{epoch}.pth')
    if epoch == last:
        time.sleep(3600)
"""


@pytest.fixture
def trainer(monkeypatch):
    """Replaces the train command by one that hangs after some epoch; returns how to set it."""
    state = {'last': 0, 'commands': []}

    def started(arguments, work_dir):
        state['commands'].append(arguments)
        numbers = [int(arguments[0] == '--resume'), EPOCHS['shapes'], INTERVAL, state['last']]
        return subprocess.Popen([sys.executable, '-c', TRAINER, work_dir, *map(str, numbers)])

    monkeypatch.setattr(training, 'started', started)
    return state


def given(tmp_path, seconds):
    (tmp_path / 'shapes/data').mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + training.SECONDS_TO_STOP + seconds
    return Context(Settings('cuda'), tmp_path, until, print)


def test_what_one_part_leaves_the_next_one_finishes(trainer, tmp_path, monkeypatch):
    monkeypatch.setitem(training.CPU_AP, 'shapes', {12: 0.5})
    trainer['last'] = 7
    *rows, resumed, skipped = train(given(tmp_path, 3), 'shapes')
    assert isinstance(resumed, Check)
    assert resumed.passed
    assert isinstance(skipped, Skipped)
    assert skipped.name == 'shapes after epoch_7 of 12'
    assert [each[0] for each in trainer['commands']] == [training.CONFIG, '--resume']

    trainer['last'] = 0
    *others, fell, below = train(given(tmp_path, 60), 'shapes')
    assert [each.cells['epoch'] for each in others] == ['9 of 12', '12 of 12']
    assert [each.cells['box AP'] for each in (*rows, *others)] == [0.03, 0.06, 0.09, 0.12]
    assert fell.passed
    assert not below.passed
    assert below.value == pytest.approx(0.5 - 0.12)
    assert [each[0] for each in trainer['commands'][2:]] == ['--resume']

    assert list(train(given(tmp_path, 60), 'shapes')) == []


def test_a_training_that_begins_again_is_found(trainer, tmp_path, monkeypatch):
    started = training.started
    monkeypatch.setattr(training, 'started', lambda _, work_dir: started(['new'], work_dir))
    found = list(train(given(tmp_path, 60), 'shapes'))
    (check,) = (each for each in found if isinstance(each, Check) and 'again' in each.name)
    assert not check.passed


def test_a_training_that_fails_is_an_error(trainer, tmp_path):
    (tmp_path / 'shapes/run').mkdir(parents=True)
    (tmp_path / 'shapes/run/part').mkdir()  # where the trainer wants to write
    with pytest.raises(RuntimeError, match='the training ended with status 1'):
        list(train(given(tmp_path, 60), 'shapes'))
