"""One HTML page about a training: python tools/report.py WORK_DIR"""

import argparse

from _stack import user_errors

from lightvit_mm.reporting.report import write_report


def main() -> None:
    """Parse the command line, write the page, and print its path."""
    parser = argparse.ArgumentParser(
        description='Write one HTML file about a training, finished or not: curves, results by '
        'class, confusion, the best and worst images, config, environment, time and memory.'
    )
    parser.add_argument('work_dir', help='--work-dir of the training, usually work_dirs/<config>')
    parser.add_argument('--out', metavar='FILE', help='the page (WORK_DIR/report.html)')
    parser.add_argument('--data-root', help="another location of the config's data set")
    parser.add_argument('--device', help='cpu, cuda:0, ... (a GPU if there is one)')
    parser.add_argument(
        '--no-predictions',
        action='store_true',
        help='use only the log, which takes seconds even if the validation set is large',
    )
    args = parser.parse_args()
    with user_errors():
        print(
            write_report(
                args.work_dir, args.out, args.data_root, args.device, not args.no_predictions
            )
        )


if __name__ == '__main__':
    main()
