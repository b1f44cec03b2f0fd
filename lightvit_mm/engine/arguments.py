"""The command-line arguments that several tools share."""

import argparse
import os

from mmengine.config import Config, DictAction

from lightvit_mm.data.own import use_own_data
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.running import LAUNCHERS


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config and what changes it."""
    parser.add_argument('config', help='config file, e.g. configs/retinanet_edgevit_s_coco.py')
    parser.add_argument('--data-root', help="another place of the config's data set")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change the config, e.g. train_dataloader.batch_size=4',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config, and where and how it is run."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='for what the run writes (work_dirs/<config name>)')
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='of several processes'
    )
    # torch's old launcher passes it; the present one sets the variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def config_of(arguments: argparse.Namespace) -> Config:
    """The config that arguments of `add_run_arguments` stand for."""
    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
    return load_config(
        arguments.config,
        arguments.cfg_options,
        arguments.data_root,
        arguments.work_dir,
        arguments.launcher,
    )


def add_own_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what puts COCO files of the user's own in the place of a config's data."""
    for part, use in (('train', 'train'), ('val', 'validate and test')):
        parser.add_argument(
            f'--{part}-data',
            nargs=2,
            metavar=('ANN', 'IMAGES'),
            help=f'{use} on this COCO annotation file and image folder',
        )
    parser.add_argument(
        '--classes-from',
        metavar='ANN',
        help="take the classes, and their number in the heads, from this COCO file's categories",
    )


def with_own_data(config: Config, arguments: argparse.Namespace) -> Config:
    """The config after what the arguments of `add_own_data_arguments` change in it."""
    use_own_data(config, arguments.train_data, arguments.val_data, arguments.classes_from)
    return config
