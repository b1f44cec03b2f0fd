"""Reproduce the published results, or check the configs against them.

python tools/reproduce.py --check
python tools/reproduce.py --coco data/coco --ade data/ade/ADEChallengeData2016 --gpus 8
"""

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track

from lightvit_mm.errors import UserError, user_errors
from lightvit_mm.reproduction.check import as_table, check_row
from lightvit_mm.reproduction.published import Row, read_published
from lightvit_mm.reproduction.report import write_report
from lightvit_mm.reproduction.run import reproduce_row


def main() -> None:
    """Read the command line; check, or train and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rows', default='*', help='shell-style pattern of config names')
    parser.add_argument('--published', default='configs/published.yml', help='the rows')
    parser.add_argument(
        '--check', action='store_true', help='compare the configs with the recipes; no data needed'
    )
    parser.add_argument('--coco', metavar='DIR', help='COCO 2017: rows on it are trained')
    parser.add_argument('--ade', metavar='DIR', help='ADEChallengeData2016: rows on it are trained')
    parser.add_argument('--gpus', type=int, default=1, help='processes on this machine')
    parser.add_argument(
        '--evaluate', action='store_true', help='evaluate released checkpoints instead of training'
    )
    parser.add_argument('--work-dir', default='work_dirs/reproduce', help='for runs and report')
    parser.add_argument(
        '--cfg-options', nargs='+', default=(), metavar='KEY=VALUE', help='for every row'
    )
    args = parser.parse_args()
    if not (args.check or args.coco or args.ade):
        parser.error('give --check, --coco DIR or --ade DIR')
    rows = read_published(args.published, args.rows)
    if args.check:
        check(rows)
    else:
        reproduce(rows, args)


def check(rows: list[Row]) -> None:
    """Print the table; exit with status 1 if a row differs."""
    results = [check_row(row) for row in track(rows, 'checking')]
    Console(width=200).print(as_table(results))
    failed = [result for result in results if result.unexplained]
    print(f'{len(results) - len(failed)} of {len(results)} rows fit their recipes')
    if failed:
        sys.exit(1)


def reproduce(rows: list[Row], args: argparse.Namespace) -> None:
    """Run the rows whose data are there, report; exit with status 1 if one failed."""
    roots = {'coco': args.coco, 'ade20k': args.ade}
    rows = [row for row in rows if roots[row.dataset] and (row.released or not args.evaluate)]
    if not rows:
        raise UserError(
            'no row is left: which have data (--coco, --ade) and, with --evaluate, files?'
        )
    folder, results, failures = Path(args.work_dir), [], []
    for number, row in enumerate(rows, 1):
        print(f'[{number}/{len(rows)}] {row.config}', flush=True)
        try:
            ours = reproduce_row(
                row, roots[row.dataset], folder, args.gpus, args.evaluate, args.cfg_options
            )
        except UserError as error:
            failures.append(str(error))
            ours = {}
        results.append((row, ours))
        # After each row: a week-long series has something to show before it ends.
        folder.mkdir(parents=True, exist_ok=True)
        comparisons = write_report(folder, results, f'python {shlex.join(sys.argv)}')
    for comparison in comparisons:
        ours = '-' if comparison.ours is None else f'{comparison.ours:.2f}'
        print(
            f'{comparison.config} {comparison.metric}: published {comparison.published}, '
            f'ours {ours}, {comparison.verdict}'
        )
    print(f'report: {folder / "report.md"}')
    for failure in failures:
        print(f'failed: {failure}', file=sys.stderr)
    if failures:
        sys.exit(1)


if __name__ == '__main__':
    with user_errors():
        main()
