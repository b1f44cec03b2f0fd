"""What a model sees in training, as a contact sheet: python tools/browse_data.py CONFIG"""

import argparse

from _stack import user_errors

from lightvit_mm.engine.arguments import add_config_arguments, add_own_data_arguments, with_own_data
from lightvit_mm.engine.configs import load_config
from lightvit_mm.reporting.browsing import browse


def main() -> None:
    """Parse the command line, draw the sheet, and say where."""
    parser = argparse.ArgumentParser(
        description='Draw training images with their boxes, masks or labels as the model gets '
        'them: after the pipeline of the config, padding and normalisation (undone for the eye).'
    )
    add_config_arguments(parser)
    parser.add_argument('--out', default='sheet.jpg', help='a JPEG or PNG file (sheet.jpg)')
    parser.add_argument('--number', type=int, default=16, help='of images (16)')
    add_own_data_arguments(parser)
    args = parser.parse_args()
    with user_errors():
        config = load_config(args.config, args.cfg_options, args.data_root)
        print(browse(with_own_data(config, args), args.out, args.number))


if __name__ == '__main__':
    main()
