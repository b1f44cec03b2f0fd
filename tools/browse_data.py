"""Draw a contact sheet of what a model sees in training: python tools/browse_data.py CONFIG"""

import argparse

from _stack import user_errors

from lightvit_mm.engine.arguments import add_config_arguments, add_own_data_arguments, with_own_data
from lightvit_mm.engine.configs import load_config
from lightvit_mm.reporting.browsing import browse


def main() -> None:
    """Parse the command line, draw the sheet, and print its path."""
    parser = argparse.ArgumentParser(
        description='Draw training images with their boxes, masks or labels as the model gets '
        'them: after pipeline and padding, with the normalisation undone.'
    )
    add_config_arguments(parser)
    parser.add_argument('--out', default='sheet.jpg', help='a JPEG or PNG file (sheet.jpg)')
    parser.add_argument('--number', type=int, default=16, help='number of images (16)')
    add_own_data_arguments(parser)
    args = parser.parse_args()
    with user_errors():
        config = load_config(args.config, args.cfg_options, args.data_root)
        print(browse(with_own_data(config, args), args.out, args.number))


if __name__ == '__main__':
    main()
