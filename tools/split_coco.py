"""Split a COCO file for training and validation: python tools/split_coco.py ANN --val 0.2"""

import argparse

from _stack import user_errors

from lightvit_mm.data.split import split_coco


def main() -> None:
    """Parse the command line, split, and print the files written."""
    parser = argparse.ArgumentParser(
        description='Split a COCO annotation file by images into ANN_train.json and ANN_val.json.'
    )
    parser.add_argument('ann', help='COCO annotation file')
    parser.add_argument(
        '--val', type=float, default=0.2, help='share of the images for validation (0.2)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the random draw (0)')
    args = parser.parse_args()
    with user_errors():
        for file, images in split_coco(args.ann, args.val, args.seed).items():
            print(f'{file}: {images} images')


if __name__ == '__main__':
    main()
