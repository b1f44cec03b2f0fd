"""Every config fits its published row, and deviations are found."""

import dataclasses

import pytest
from helpers.repository import REPOSITORY, run_tool
from mmengine.config import Config

from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError
from lightvit_mm.reproduction.check import RATE_TOLERANCE, check_row
from lightvit_mm.reproduction.published import read_published
from lightvit_mm.reproduction.schedule import build_runner, learning_rates

PUBLISHED = REPOSITORY / 'configs' / 'published.yml'
ROWS = read_published(PUBLISHED)


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.config)
def test_every_row_fits_its_config(row):
    assert check_row(row, REPOSITORY / 'configs').unexplained == []


# Learning rates before an iteration, from the logs that RepViT released, which round to five
# places; the warm-up is a straight line to iteration 500.
DETECTION = {0: 2e-10, 50: 2e-5, 500: 2e-4, 7330: 2e-4, 58640: 2e-5, 80630: 2e-6}


def test_rates_and_decay_of_a_built_optimizer_are_those_of_repvits_log():
    config = load_config(str(REPOSITORY / 'configs/mask_rcnn_repvit_m1_1_coco.py'))
    runner = build_runner(config, 7330)
    rates = learning_rates(runner, DETECTION)
    for iteration, rate in DETECTION.items():
        assert rates[iteration] == pytest.approx(rate, rel=RATE_TOLERANCE)
    decays = {group['weight_decay'] for group in runner.optim_wrapper.param_groups}
    assert decays == {0.05}


ROW = next(row for row in ROWS if row.config == 'semantic_fpn_edgevit_xxs_ade20k')
MISTAKES = {
    'parameters': {'parameters_M': {'published': 8.0}},
    'gmacs': {'gmacs': {'published': 30.0, 'input': [512, 512]}},
    'init': {'init': 'edgevit_xs.easycv'},
    'optimizer': {'recipe': dataclasses.replace(ROW.recipe, weight_decay=0.05)},
    'schedule': {'recipe': dataclasses.replace(ROW.recipe, poly_power=1.0)},
    'batch': {'recipe': dataclasses.replace(ROW.recipe, batch=16)},
    'norms': {'recipe': dataclasses.replace(ROW.recipe, norm_eval=True)},
}


@pytest.mark.parametrize('part', MISTAKES)
def test_a_difference_is_found_unless_it_is_explained(part):
    row = dataclasses.replace(ROW, **MISTAKES[part])
    checked = check_row(row, REPOSITORY / 'configs')
    assert list(checked.differences) == [part]
    assert len(checked.unexplained) == 1
    explained = dataclasses.replace(checked, row=dataclasses.replace(row, explained={part: 'why'}))
    assert explained.unexplained == []


def test_an_explanation_without_a_difference_is_found():
    row = dataclasses.replace(ROW, explained={'batch': 'why'})
    assert check_row(row, REPOSITORY / 'configs').unexplained == [
        'batch: explained in the row, but does not differ'
    ]


def test_a_log_that_differs_is_found():
    row = dataclasses.replace(ROW, curves={'lr': {20000: 0.00012}})
    assert '0.00012 in the log' in check_row(row, REPOSITORY / 'configs').differences['schedule']


def test_rows_by_pattern():
    assert {row.config for row in read_published(PUBLISHED, '*edgevit_s_*')} == {
        'retinanet_edgevit_s_coco',
        'mask_rcnn_edgevit_s_coco',
        'semantic_fpn_edgevit_s_ade20k',
    }
    with pytest.raises(UserError, match='retinanet_edgevit_s_coco'):
        read_published(PUBLISHED, 'nothing*')


def test_every_leaf_begins_with_what_was_published():
    rows = {row.config: row for row in ROWS}
    for file in (REPOSITORY / 'configs').glob('*.py'):
        comment = file.read_text().split('_base_')[0]
        if file.stem in rows:
            assert comment.startswith('# Published'), file.stem
            for value in rows[file.stem].published.values():
                assert str(value) in comment, f'{file.stem}: {value}'
        elif '_in1k' in file.stem:
            assert comment.startswith(('# Published: top-1 ', '# No published figure')), file.stem
            assert 'ecipe' in comment, file.stem
        elif not file.stem.endswith('_shapes'):
            assert comment.startswith(('# No published figure', '# No figure published')), file.stem
            assert 'ecipe' in comment, file.stem


@pytest.mark.parametrize(('rows', 'status'), [('retinanet_edgevit_xxs*', 0), ('nothing', 2)])
def test_the_tool(rows, status):
    result = run_tool('tools/reproduce.py', '--check', '--rows', rows)
    assert result.returncode == status
    if status == 0:
        assert '1 of 1 rows fit their recipes' in result.stdout
        assert '13.396' in result.stdout
        assert 'third-party' in result.stdout


def test_the_tool_fails_on_a_difference(tmp_path):
    file = tmp_path / 'published.yml'
    file.write_text(PUBLISHED.read_text().replace('computed: 16.279', 'computed: 16.278'))
    rows = ('--rows', 'retinanet_edgevit_xs*')
    result = run_tool('tools/reproduce.py', '--check', '--published', str(file), *rows)
    assert result.returncode == 1
    assert '0 of 1 rows fit' in result.stdout


def test_the_configs_name_no_recipe_twice():
    names = [row.config for row in ROWS]
    assert len(names) == len(set(names))
    for row in ROWS:
        assert Config.fromfile(REPOSITORY / 'configs' / f'{row.config}.py').model.backbone.arch


@pytest.mark.parametrize('content', [b'rows: [', b'3', b'{}', b'rows: []\nrecipes: 4', b'\xff'])
def test_files_without_rows(content, tmp_path):
    (tmp_path / 'rows.yml').write_bytes(content)
    with pytest.raises(UserError, match=r'rows\.yml is not a list of published rows'):
        read_published(tmp_path / 'rows.yml')
