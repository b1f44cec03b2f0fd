"""Check and measure everything on a GPU, in ten minutes: python tools/gpu_check.py

Outputs and gradients against double precision on the CPU; a training that is killed and resumed;
time and memory of detectors and backbones, beside timm's. What is found is written at once.
"""

import argparse
import os
import sys
from pathlib import Path

from _stack import user_errors

import torch

from lightvit_mm.errors import MissingFileError, UserError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmarks'))
from gpu.context import Settings
from gpu.record import JSON, TABLES
from gpu.running import PARTS, check_gpu


def choose_device(name: str) -> str:
    """Hide all other devices from the processes to come; returns ``cpu`` or ``cuda``."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f'--device {name}: give cuda, cuda:1 or cpu') from error
    if device.type not in ('cpu', 'cuda'):
        raise UserError(f'--device {name}: give cuda, cuda:1 or cpu')
    if device.type == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
        return 'cpu'
    if not torch.cuda.is_available():
        raise UserError('torch finds no CUDA device; --device cpu runs the checks on the CPU')
    count = torch.cuda.device_count()
    if device.index is not None:
        if device.index >= count:
            raise UserError(f'--device {name}: there are {count}, from cuda:0 on')
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        names = visible.split(',') if visible else [str(number) for number in range(count)]
        os.environ['CUDA_VISIBLE_DEVICES'] = names[device.index]
    return 'cuda'


def main() -> None:
    """Parse the command line and check; exit with status 1 if a check failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda', help='device to check (cuda)')
    parser.add_argument('--quick', action='store_true', help='only see whether everything runs')
    parser.add_argument('--parts', nargs='+', choices=PARTS, help='only these parts')
    parser.add_argument('--minutes', type=float, default=10.0, help='time for all of it (10)')
    parser.add_argument(
        '--nuclei', metavar='DIR', help='train on this COCO data set too: annotations/, images/'
    )
    parser.add_argument(
        '--cifar10', metavar='DIR', help='train on this one too: train/CLASS/, test/CLASS/'
    )
    parser.add_argument('--work-dir', default='work_dirs/gpu_check', help='folder for the results')
    args = parser.parse_args()
    with user_errors():
        for option in ('nuclei', 'cifar10'):
            folder = getattr(args, option)
            if folder and not os.path.isdir(folder):
                raise MissingFileError(f'--{option} {folder} is no folder')
        if not args.minutes > 0:
            raise UserError(f'--minutes {args.minutes:g}: give more than 0')
        device = choose_device(args.device)
        settings = Settings(device, args.quick, args.nuclei, args.cifar10)
        report = check_gpu(settings, args.work_dir, args.minutes, args.parts)
        unfinished = [part.name for part in report.parts if part.state != 'done']
        print(f'{len(report.failures)} failures; results in {args.work_dir}: {TABLES}, {JSON}')
        if unfinished:
            print(f'not finished: {", ".join(unfinished)}')
        for each in report.failures:
            print(each, file=sys.stderr)
    if report.failures:
        sys.exit(1)


if __name__ == '__main__':
    main()
