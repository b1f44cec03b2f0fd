"""Make the shapes data set: small synthetic scenes with COCO and mmseg annotations."""

from __future__ import annotations

import argparse

from _stack import user_errors

from lightvit_mm.errors import UserError
from lightvit_mm.shapes.dataset import make_shapes


def main() -> None:
    """Parse the arguments, make the data set, and print its contents."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('root', metavar='ROOT', help='directory of the data set')
    parser.add_argument('--train', type=int, default=2400, metavar='N', help='training images')
    parser.add_argument('--val', type=int, default=100, metavar='N', help='validation images')
    parser.add_argument('--size', type=int, default=128, metavar='PX', help='height and width')
    parser.add_argument('--seed', type=int, default=0, metavar='S', help='seed of all scenes')
    parser.add_argument(
        '--force', action='store_true', help='replace a shapes data set made with other parameters'
    )
    arguments = parser.parse_args()
    try:
        summary = make_shapes(
            arguments.root,
            num_train=arguments.train,
            num_val=arguments.val,
            image_size=arguments.size,
            seed=arguments.seed,
            force=arguments.force,
        )
    except (ValueError, OSError) as error:
        raise UserError(f'make_shapes: {error}') from error
    print(summary)


if __name__ == '__main__':
    with user_errors():
        main()
