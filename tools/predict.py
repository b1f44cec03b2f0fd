"""Predict on images or a video: python tools/predict.py CONFIG CHECKPOINT SOURCE --out DIR"""

import argparse
import sys

from _stack import user_errors

from lightvit_mm.engine.arguments import add_cfg_options
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.predicting import VideoPredictions, predict, predict_video
from lightvit_mm.engine.video import is_video


def main() -> int:
    """Parse the command line, predict, and print a summary; return 1 if something was skipped."""
    parser = argparse.ArgumentParser(
        description='Draw predictions on images or a video and write them to a JSON file.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint',
        help='weights (a file or an https:// address), or a file of tools/export.py',
    )
    parser.add_argument(
        'source',
        help='an image, a folder, a quoted glob pattern, a video, the address of a stream '
        '(rtsp://...), or the number of a camera',
    )
    parser.add_argument(
        '--out',
        required=True,
        help='folder for pictures and predictions.json, or the video and predictions.jsonl',
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='draw boxes above this score (0.3)'
    )
    parser.add_argument('--device', help='cpu, cuda:0, ... (default: a GPU if available)')
    add_cfg_options(parser)
    args = parser.parse_args()
    with user_errors():
        config = load_config(args.config, args.cfg_options)
        arguments = (config, args.checkpoint, args.source, args.out, args.score_thr, args.device)
        if is_video(args.source):
            return _report_video(predict_video(*arguments))
        made = predict(*arguments)
    for file, reason in made.failed.items():
        print(f'skipped {file}: {reason}', file=sys.stderr)
    print(f'{len(made.pictures)} pictures in {args.out}, predictions in {made.json_file}')
    return 1 if made.failed else 0


def _report_video(made: VideoPredictions) -> int:
    if made.losses:
        print(made.losses, file=sys.stderr)
    print(
        f'{made.frames} frames in {made.video} (codec {made.codec}), predictions in '
        f'{made.json_file}; {made.rate:.1f} frames a second'
    )
    if made.stopped is not None:
        raise made.stopped
    return 1 if made.losses else 0


if __name__ == '__main__':
    sys.exit(main())
