"""Find everything wrong with the data of a config: python tools/check_data.py CONFIG"""

import argparse
import sys

from _stack import user_errors

from lightvit_mm.data.checking import check_everything, check_reports_file, summary, write_reports
from lightvit_mm.data.coco_file import add_iscrowd
from lightvit_mm.data.findings import ERROR, count
from lightvit_mm.engine.arguments import add_config_arguments, add_own_data_arguments, with_own_data
from lightvit_mm.engine.configs import load_config


def main() -> int:
    """Parse the command line, check, print the findings; return 1 if training would fail."""
    parser = argparse.ArgumentParser(
        description='Check every annotation, image, label map and class folder of a config. Exit '
        'status: 0 if it can be trained on (perhaps with warnings), 1 if not, 2 if it could not be '
        'checked.'
    )
    add_config_arguments(parser)
    parser.add_argument('--out', metavar='FILE.json', help='write every finding to this file')
    parser.add_argument(
        '--add-iscrowd',
        nargs=2,
        metavar=('ANN', 'OUT'),
        help='first write a copy of a COCO file with "iscrowd": 0 where it is missing',
    )
    add_own_data_arguments(parser)
    args = parser.parse_args()
    with user_errors():
        if args.add_iscrowd:
            added = add_iscrowd(*args.add_iscrowd)
            print(f'{args.add_iscrowd[1]}: iscrowd added to {added} annotations')
        config = with_own_data(load_config(args.config, args.cfg_options, args.data_root), args)
        if args.out:
            check_reports_file(config, args.out)
        reports = check_everything(config)
        if args.out:
            write_reports(reports, args.out)
    print(summary(reports) + (f'; all of them in {args.out}' if args.out else ''))
    return int(any(count(report.findings, ERROR) for report in reports))


if __name__ == '__main__':
    sys.exit(main())
