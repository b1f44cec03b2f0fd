"""Train a model: python tools/train.py configs/retinanet_edgevit_s_coco.py"""

import argparse

from _stack import user_errors

from lightvit_mm.engine.arguments import (
    add_own_data_arguments,
    add_run_arguments,
    config_of,
    with_own_data,
)
from lightvit_mm.engine.running import show_param_groups, train


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description='Train a detector, segmentor or classifier.')
    add_run_arguments(parser)
    add_own_data_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without a name, from the last one in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision (bfloat16 on a CPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size over all processes',
    )
    parser.add_argument(
        '--tensorboard', action='store_true', help='also log for TensorBoard, in the work dir'
    )
    parser.add_argument(
        '--show-param-groups',
        action='store_true',
        help='print learning rate and weight decay of each parameter group, without training',
    )
    args = parser.parse_args()
    with user_errors():
        config = with_own_data(config_of(args), args)
        if args.show_param_groups:
            show_param_groups(config, args.amp, args.auto_scale_lr)
            return
        train(config, args.resume, args.amp, args.auto_scale_lr, args.tensorboard)


if __name__ == '__main__':
    main()
