"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT"""

import argparse
import os

from mmengine.config import DictAction

from lightvit_mm.engine.running import LAUNCHERS, load_config, test
from lightvit_mm.errors import user_errors


def main() -> None:
    """Parse the command line and evaluate."""
    parser = argparse.ArgumentParser(description='Evaluate a detector or a segmentor.')
    parser.add_argument('config', help='config file, e.g. configs/retinanet_edgevit_s_coco.py')
    parser.add_argument('checkpoint', help='weights: a file or an https:// address')
    parser.add_argument('--work-dir', help='for the log and the metrics (work_dirs/<config name>)')
    parser.add_argument('--data-root', help="another place of the config's data set")
    parser.add_argument(
        '--out', help='keep predictions: a .pkl file (detector), a folder of label maps (segmentor)'
    )
    parser.add_argument('--show-dir', help='draw predictions beside the ground truth there')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change the config, e.g. test_dataloader.num_workers=0',
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
        test(config, args.checkpoint, args.out, args.show_dir, args.tta)


if __name__ == '__main__':
    main()
