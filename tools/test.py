"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT"""

import argparse

from _stack import user_errors

from lightvit_mm.engine.arguments import (
    add_own_data_arguments,
    add_run_arguments,
    config_of,
    with_own_data,
)
from lightvit_mm.engine.running import test


def main() -> None:
    """Parse the command line and evaluate."""
    parser = argparse.ArgumentParser(description='Evaluate a detector, segmentor or classifier.')
    add_run_arguments(parser)
    parser.add_argument(
        'checkpoint',
        help='weights (a file, https:// or timm://) or a file of tools/export.py',
    )
    parser.add_argument(
        '--out',
        help='write predictions to a .pkl file (detector, classifier), or label maps to a folder '
        '(segmentor)',
    )
    parser.add_argument(
        '--show-dir', help='folder for pictures of predictions next to the ground truth'
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_own_data_arguments(parser)
    args = parser.parse_args()
    with user_errors():
        config = with_own_data(config_of(args), args)
        test(config, args.checkpoint, args.out, args.show_dir, args.tta)


if __name__ == '__main__':
    main()
