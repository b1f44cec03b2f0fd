"""Reproduce the published results, or check the configs against them.

python tools/reproduce.py --check
python tools/reproduce.py --coco data/coco --ade data/ade/ADEChallengeData2016 --gpus 8
python tools/reproduce.py --imagenet data/imagenet --evaluate
"""

import argparse
import sys
from pathlib import Path

from _stack import user_errors

from rich.console import Console
from rich.progress import track

from lightvit_mm.carried import CONFIGS
from lightvit_mm.reproduction.check import as_table, check_row
from lightvit_mm.reproduction.imagenet import reproduce_imagenet
from lightvit_mm.reproduction.published import Row, read_published
from lightvit_mm.reproduction.run import reproduce


def main() -> None:
    """Parse the command line; check the configs, or train and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--rows', nargs='+', default=(), metavar='PATTERN', help='configs, by shell-style patterns'
    )
    parser.add_argument(
        '--published',
        default=CONFIGS / 'published.yml',
        help="file of the published results (the package's)",
    )
    parser.add_argument(
        '--check', action='store_true', help='compare the configs with the recipes; needs no data'
    )
    parser.add_argument('--coco', metavar='DIR', help='COCO 2017, to train the rows that use it')
    parser.add_argument(
        '--ade', metavar='DIR', help='ADEChallengeData2016, to train the rows that use it'
    )
    parser.add_argument(
        '--voc', metavar='DIR', help='VOCdevkit/VOC2012, to train the rows that use it'
    )
    parser.add_argument(
        '--imagenet',
        metavar='DIR',
        help='ImageNet: alone, to train the rows of top-1, or with --evaluate to evaluate the '
        'published weights; beside other data, to evaluate the weights of each row before it is '
        'trained',
    )
    parser.add_argument('--gpus', type=int, default=1, help='processes on this machine (1)')
    parser.add_argument(
        '--evaluate', action='store_true', help='evaluate released checkpoints instead of training'
    )
    parser.add_argument(
        '--work-dir', default='work_dirs/reproduce', help='folder for runs and report'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=(),
        metavar='KEY=VALUE',
        help='changes to the config of every row',
    )
    args = parser.parse_args()
    roots = {'coco': args.coco, 'ade20k': args.ade, 'voc12aug': args.voc}
    roots = {dataset: root for dataset, root in roots.items() if root}
    if not (args.check or roots or args.imagenet):
        parser.error('give --check, --coco DIR, --ade DIR, --voc DIR or --imagenet DIR')
    if args.imagenet and not (args.check or roots):
        finish(
            reproduce_imagenet(
                args.imagenet,
                Path(args.work_dir),
                args.rows,
                args.gpus,
                args.evaluate,
                args.cfg_options,
            )
        )
        return
    rows = read_published(args.published, *args.rows)
    if args.check:
        check(rows)
        return
    failures = reproduce(
        rows,
        read_published(args.published),
        roots,
        Path(args.work_dir),
        args.gpus,
        args.evaluate,
        args.cfg_options,
        args.imagenet,
    )
    finish(failures)


def finish(failures: list[str]) -> None:
    """Print the rows that failed; exit with status 1 if there are any."""
    if failures:
        print(*failures, sep='\n', file=sys.stderr)
        sys.exit(1)


def check(rows: list[Row]) -> None:
    """Print the table of checks; exit with status 1 if a row differs without explanation."""
    results = [check_row(row) for row in track(rows, 'checking')]
    Console(width=200).print(as_table(results))
    failed = [result for result in results if result.unexplained]
    print(f'{len(results) - len(failed)} of {len(results)} rows fit their recipes')
    if failed:
        sys.exit(1)


if __name__ == '__main__':
    with user_errors():
        main()
