"""Label maps of colour-coded masks: python tools/convert_masks.py MASKS OUT --classes-from FILE"""

import argparse

from _stack import user_errors

from lightvit_mm.data.masks import convert_masks


def main() -> None:
    """Parse the command line, convert, and print what was written."""
    parser = argparse.ArgumentParser(
        description='Write a label map, with the number of a class for each pixel, for every mask '
        'whose colours stand for classes.'
    )
    parser.add_argument('masks', help='folder of the masks')
    parser.add_argument('out', metavar='OUT', help='folder for the label maps')
    parser.add_argument(
        '--classes-from', metavar='FILE', required=True, help='names and colours of the classes'
    )
    parser.add_argument(
        '--ignore',
        nargs=3,
        type=int,
        action='append',
        default=[],
        metavar=('R', 'G', 'B'),
        help='a colour without a class, label 255, which is not learnt; may be repeated',
    )
    parser.add_argument(
        '--ignore-others', action='store_true', help='label 255 for all other colours'
    )
    args = parser.parse_args()
    with user_errors():
        ignored = [tuple(colour) for colour in args.ignore]
        number = convert_masks(args.masks, args.out, args.classes_from, ignored, args.ignore_others)
    print(f'{number} label maps in {args.out}')


if __name__ == '__main__':
    main()
