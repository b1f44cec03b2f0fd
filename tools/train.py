"""Train a detector or a segmentor: python tools/train.py configs/retinanet_edgevit_s_coco.py"""

import argparse
import os

from mmengine.config import DictAction

from lightvit_mm.engine.running import LAUNCHERS, load_config, train
from lightvit_mm.errors import user_errors


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description='Train a detector or a segmentor.')
    parser.add_argument('config', help='config file, e.g. configs/retinanet_edgevit_s_coco.py')
    parser.add_argument('--work-dir', help='for checkpoints and logs (work_dirs/<config name>)')
    parser.add_argument('--data-root', help="another place of the config's data set")
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a name, from the last one of the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision (bfloat16 on a CPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the number of GPUs and the batch size',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change the config, e.g. train_dataloader.batch_size=4',
    )
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='of several processes'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    with user_errors():
        config = load_config(
            args.config, args.cfg_options, args.data_root, args.work_dir, args.launcher
        )
        train(config, args.resume, args.amp, args.auto_scale_lr)


if __name__ == '__main__':
    main()
