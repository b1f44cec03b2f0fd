"""Rows of top-1: what would be run, and how the results are judged."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from helpers.repository import REPOSITORY

from lightvit_mm.checkpoints.weights import WEIGHTS, named_weights
from lightvit_mm.errors import UserError
from lightvit_mm.reproduction import calling
from lightvit_mm.reproduction.imagenet import (
    check_weights,
    evaluations,
    reproduce_imagenet,
    trainings,
)


class Calls(list):
    """The command lines that would have run; each logs ``top1`` as a tool would."""

    top1 = 0.0

    def __call__(self, command):
        self.append(' '.join(command))
        from pathlib import Path

        folder = Path(command[command.index('--work-dir') + 1], '20260101_000000')
        (folder / 'vis_data').mkdir(parents=True)
        entries = ({'loss': 1.0, 'lr': 0.1, 'step': 1, 'epoch': 1}, {'top1': self.top1, 'step': 1})
        (folder / 'vis_data/scalars.json').write_text('\n'.join(map(json.dumps, entries)))
        (folder / '20260101_000000.json').write_text(json.dumps(entries[1]))
        return nullcontext(SimpleNamespace(wait=lambda: 0))


@pytest.fixture
def calls(monkeypatch):
    made = Calls()
    monkeypatch.setattr(calling.subprocess, 'Popen', made)
    return made


def test_every_row_has_a_config():
    rows = [*evaluations(), *trainings()]
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert (REPOSITORY / f'configs/{row.config}.py').is_file()
    assert len(evaluations()) == sum(weights.top1 is not None for weights in WEIGHTS)
    found = {row.config: row.published for row in trainings()}
    assert found['edgevit_xxs_in1k'] == 74.4
    assert found['repvit_m2_3_in1k_distill'] == 83.3
    assert found['mobilevit_s_in1k'] == 78.3
    assert len(found) == 3 + 3 + 9 + 6
    for name, value in found.items():
        assert str(value)[:4] in (REPOSITORY / f'configs/{name}.py').read_text(), name


@pytest.mark.parametrize(
    ('evaluate', 'row', 'inside', 'outside'),
    [(True, 'edgevit_xxs.easycv', 75.27, 75.0), (False, 'edgevit_xxs_in1k', 74.65, 74.0)],
)
def test_results_are_compared_and_kept(calls, tmp_path, evaluate, row, inside, outside):
    for name, top1, fails in (('a', inside, False), ('b', outside, True)):
        calls.top1 = top1
        for _ in range(2):  # the second time nothing is run
            failed = reproduce_imagenet('data', tmp_path / name, [row], evaluate=evaluate)
            assert bool(failed) is fails
        page = (tmp_path / name / 'imagenet.md').read_text()
        assert f'| {row} |' in page
        assert ('OUTSIDE' in page) is fails
    assert len(calls) == 2
    tool = 'test.py' if evaluate else 'train.py'
    assert tool in calls[0]
    assert '--data-root data' in calls[0]
    assert ('easycv' in calls[0].lower()) is evaluate


def test_weights_are_tried_before_a_training(calls, tmp_path):
    weights = named_weights('repvit_m1_1.distill_300e')
    calls.top1 = 80.7
    check_weights(weights, 'data', tmp_path / 'good')
    calls.top1 = 12.3
    with pytest.raises(UserError, match=r'top-1 12\.30, published 80\.7'):
        check_weights(weights, 'data', tmp_path / 'bad')


def test_patterns(tmp_path):
    with pytest.raises(UserError, match=r'there are\n  edgevit_xxs\.easycv'):
        reproduce_imagenet('data', tmp_path, ['nothing'], evaluate=True)
