"""Command-line arguments that several tools share."""

import argparse
import os
import sys
from typing import Any

from mmengine.config import Config, DictAction

from lightvit_mm.data.own import use_own_data
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.launching import LAUNCHERS


class KeyValues(DictAction):
    """mmengine's reader of ``KEY=VALUE``, with usage errors for what it cannot read."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add the pairs to the namespace."""
        for pair in values:
            key, equals, _ = pair.partition('=')
            if not equals or not all(key.split('.')):
                parser.error(
                    f'{option_string} {pair}: expected KEY=VALUE with a dotted key, e.g. '
                    'train_dataloader.batch_size=4'
                )
            try:
                super().__call__(parser, namespace, [pair], option_string)
            except (AssertionError, RecursionError, ValueError) as error:
                parser.error(f'{option_string} {pair[:80]}: {str(error)[:80]}')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that overrides entries of the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='override config entries, e.g. train_dataloader.batch_size=4',
    )


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config file and the options that override it."""
    parser.add_argument('config', help='config file, e.g. configs/retinanet_edgevit_s_coco.py')
    parser.add_argument('--data-root', help="folder of the config's data set, if not the usual one")
    add_cfg_options(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config arguments, the output folder and the launcher."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='output folder (work_dirs/<config name>)')
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='what starts several processes (none)'
    )
    # torch's old launcher passes it; torchrun sets the variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def config_of(arguments: argparse.Namespace) -> Config:
    """Load the config described by the arguments of `add_run_arguments`."""
    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
    return load_config(
        arguments.config,
        arguments.cfg_options,
        arguments.data_root,
        arguments.work_dir,
        arguments.launcher,
    )


def add_own_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add options that replace a config's data by the user's: COCO files, label maps, folders."""
    for part, use in (('train', 'train'), ('val', 'validate and test')):
        option = f'--{part}-data'
        names = ('ANN|IMAGES|DIR', 'IMAGES|LABELS')
        number = 1 if _is_followed_by_one(option) else 2
        parser.add_argument(
            option,
            nargs=number,
            metavar=names[:number],
            help=f'{use} on this COCO file and image folder (detector), on these folders of '
            'images and of label maps with the same names (segmentor), or on this one folder with '
            'a folder for each class (classifier)',
        )
    parser.add_argument(
        '--classes-from',
        metavar='FILE',
        help="take the classes from this COCO file's categories (detector) or from a JSON or text "
        'file of names and colours (segmentor), and set num_classes of the heads',
    )


def _is_followed_by_one(option: str) -> bool:
    """Whether the command line has one value after an option, and not two.

    argparse could only take any number, also the arguments that follow.
    """
    words = sys.argv[1:]
    if option not in words:
        return any(word.startswith(f'{option}=') for word in words)
    after = words[words.index(option) + 1 :]
    number = next((i for i, word in enumerate(after) if word.startswith('--')), len(after))
    return number == 1


def with_own_data(config: Config, arguments: argparse.Namespace) -> Config:
    """Apply the arguments of `add_own_data_arguments` to a config, in place, and return it."""
    use_own_data(config, arguments.train_data, arguments.val_data, arguments.classes_from)
    return config
