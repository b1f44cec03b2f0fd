from helpers.repository import REPOSITORY

from lightvit_mm.engine.configs import load_config
from lightvit_mm.reproduction.schedule import build_runner


def test_no_runner_gets_the_name_of_one_before():
    # Otherwise mmengine would give the second the registries of the first, even of another task.
    config = load_config(str(REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'))
    names = [build_runner(config, 10).experiment_name for _ in range(4)]
    assert len(set(names)) == 4
