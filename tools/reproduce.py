"""Reproduce the published results, or check the configs against them.

python tools/reproduce.py --check
python tools/reproduce.py --coco data/coco --ade data/ade/ADEChallengeData2016 --gpus 8
"""

import argparse
import sys
from pathlib import Path

from _stack import user_errors

from rich.console import Console
from rich.progress import track

from lightvit_mm.reproduction.check import as_table, check_row
from lightvit_mm.reproduction.published import Row, read_published
from lightvit_mm.reproduction.run import reproduce


def main() -> None:
    """Read the command line; check, or train and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--rows', nargs='+', default=(), metavar='PATTERN', help='shell-style, of config names'
    )
    parser.add_argument('--published', default='configs/published.yml', help='the rows')
    parser.add_argument(
        '--check', action='store_true', help='compare the configs with the recipes; no data needed'
    )
    parser.add_argument('--coco', metavar='DIR', help='COCO 2017: rows on it are trained')
    parser.add_argument('--ade', metavar='DIR', help='ADEChallengeData2016: rows on it are trained')
    parser.add_argument('--voc', metavar='DIR', help='VOCdevkit/VOC2012: rows on it are trained')
    parser.add_argument('--gpus', type=int, default=1, help='processes on this machine')
    parser.add_argument(
        '--evaluate', action='store_true', help='evaluate released checkpoints instead of training'
    )
    parser.add_argument('--work-dir', default='work_dirs/reproduce', help='for runs and report')
    parser.add_argument(
        '--cfg-options', nargs='+', default=(), metavar='KEY=VALUE', help='for every row'
    )
    args = parser.parse_args()
    roots = {'coco': args.coco, 'ade20k': args.ade, 'voc12aug': args.voc}
    roots = {dataset: root for dataset, root in roots.items() if root}
    if not (args.check or roots):
        parser.error('give --check, --coco DIR, --ade DIR or --voc DIR')
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
    )
    if failures:
        print(*failures, sep='\n', file=sys.stderr)
        sys.exit(1)


def check(rows: list[Row]) -> None:
    """Print the table; exit with status 1 if a row differs."""
    results = [check_row(row) for row in track(rows, 'checking')]
    Console(width=200).print(as_table(results))
    failed = [result for result in results if result.unexplained]
    print(f'{len(results) - len(failed)} of {len(results)} rows fit their recipes')
    if failed:
        sys.exit(1)


if __name__ == '__main__':
    with user_errors():
        main()
