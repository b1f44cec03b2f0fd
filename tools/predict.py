"""Predict on images: python tools/predict.py CONFIG CHECKPOINT IMAGE|DIR|GLOB --out DIR"""

import argparse
import sys

from _stack import user_errors

from lightvit_mm.engine.arguments import add_cfg_options
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.predicting import predict


def main() -> int:
    """Parse the command line, predict, and print a summary; return 1 if an image was skipped."""
    parser = argparse.ArgumentParser(
        description='Draw predictions on images and write them to a JSON file.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint',
        help='weights (a file or an https:// address), or a file of tools/export.py',
    )
    parser.add_argument('images', help='an image, a folder, or a quoted glob pattern')
    parser.add_argument('--out', required=True, help='folder for pictures and predictions.json')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='draw boxes above this score (0.3)'
    )
    parser.add_argument('--device', help='cpu, cuda:0, ... (default: a GPU if available)')
    add_cfg_options(parser)
    args = parser.parse_args()
    with user_errors():
        config = load_config(args.config, args.cfg_options)
        made = predict(config, args.checkpoint, args.images, args.out, args.score_thr, args.device)
    for file, reason in made.failed.items():
        print(f'skipped {file}: {reason}', file=sys.stderr)
    print(f'{len(made.pictures)} pictures in {args.out}, predictions in {made.json_file}')
    return 1 if made.failed else 0


if __name__ == '__main__':
    sys.exit(main())
