"""Check and measure everything on a GPU: python tools/gpu_check.py

Every backbone's outputs and gradients against double precision on the CPU, autocast,
channels_last, torch.compile; tables of speed and memory next to timm's; one short training.
"""

import argparse
import sys

from _stack import user_errors

import torch

from lightvit_mm.benchmark.device_check import check_device
from lightvit_mm.errors import UserError


def main() -> None:
    """Parse the command line and check; exit with status 1 if a check failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda', help='device to check (cuda)')
    parser.add_argument('--quick', action='store_true', help='a small part of it, in a minute')
    parser.add_argument(
        '--work-dir', default='work_dirs/gpu_check', help='folder for tables and training'
    )
    args = parser.parse_args()
    with user_errors():
        try:
            torch.device(args.device)
        except RuntimeError as error:
            raise UserError(f'--device {args.device}: give cuda, cuda:1 or cpu') from error
        if args.device.startswith('cuda') and not torch.cuda.is_available():
            raise UserError('torch finds no CUDA device; --device cpu runs the checks on the CPU')
        checks = check_device(args.device, args.quick, args.work_dir)
    failed = [check.name for check in checks if not check.passed]
    print(f'{len(checks) - len(failed)} of {len(checks)} checks passed; tables in {args.work_dir}')
    for name in failed:
        print(f'failed: {name}', file=sys.stderr)
    if failed:
        sys.exit(1)


if __name__ == '__main__':
    main()
