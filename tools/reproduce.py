"""Check the configs of the published results: python tools/reproduce.py --check"""

import argparse

from rich.console import Console
from rich.progress import track

from lightvit_mm.errors import user_errors
from lightvit_mm.reproduction.check import as_table, check_row
from lightvit_mm.reproduction.published import read_published


def main() -> None:
    """Read the command line and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', required=True)
    parser.add_argument('--rows', default='*', help='shell-style pattern of config names')
    parser.add_argument('--published', default='configs/published.yml')
    args = parser.parse_args()
    rows = read_published(args.published, args.rows)
    results = [check_row(row) for row in track(rows, 'checking')]
    Console(width=200).print(as_table(results))
    failed = [result for result in results if result.unexplained]
    print(f'{len(results) - len(failed)} of {len(results)} rows fit their recipes')
    if failed:
        raise SystemExit(1)


if __name__ == '__main__':
    with user_errors():
        main()
