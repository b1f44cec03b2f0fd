"""Export to a file for a device: python tools/export.py CONFIG CHECKPOINT OUT.onnx --size H W"""

import argparse

from _stack import user_errors

from lightvit_mm.engine.arguments import add_cfg_options
from lightvit_mm.engine.configs import load_config
from lightvit_mm.export.exporting import export
from lightvit_mm.export.formats import FORMATS


def main() -> None:
    """Parse the command line, export, and print a summary."""
    formats = ', '.join(f'{form.suffix} ({form.name})' for form in FORMATS)
    parser = argparse.ArgumentParser(
        description='Export a detector, a segmentor, or the backbone of any model in deploy form '
        'to a file that runs without PyTorch, and compare it with PyTorch. Its input is a BGR '
        'image from OpenCV as (N, 3, H, W) float32: '
        "image[None].transpose(0, 3, 1, 2).astype('float32')"
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='weights: a file or an https:// address')
    parser.add_argument('out', metavar='OUT', help=f'file to write; its suffix: {formats}')
    parser.add_argument(
        '--size', nargs=2, type=int, default=(512, 512), metavar=('H', 'W'), help='(512 512)'
    )
    parser.add_argument(
        '--dynamic',
        action='store_true',
        help='accept any height and width that are multiples of 32 (not for segmentors)',
    )
    parser.add_argument(
        '--backbone-only', action='store_true', help='export the feature pyramid only'
    )
    parser.add_argument(
        '--image',
        nargs='+',
        default=(),
        help='images for the comparison; for a detector, they must show objects',
    )
    parser.add_argument(
        '--quantize',
        metavar='IMAGES',
        help='also write a file in 8 bits (OUT.onnx: OUT.int8.onnx), calibrated on the images in '
        'this folder',
    )
    parser.add_argument(
        '--full-integer',
        action='store_true',
        help='with --quantize: integers up to the last layers, for accelerators that need them '
        '(.tflite)',
    )
    parser.add_argument(
        '--precision',
        choices=sorted({precision for form in FORMATS for precision in form.precisions}),
        default='fp32',
        help='fp16: weights in half the space (.xml); (fp32)',
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    if min(args.size) < 1:
        parser.error('--size: height and width must be positive')
    with user_errors():
        config = load_config(args.config, args.cfg_options)
        made = export(
            config,
            args.checkpoint,
            args.out,
            tuple(args.size),
            args.dynamic,
            args.backbone_only,
            args.image,
            args.quantize,
            args.precision,
            args.full_integer,
        )
    for shape, deviation, detections in made.checked:
        found = '' if detections is None else f'{detections} detections, '
        print(f'compared with PyTorch at {"x".join(map(str, shape))}: {found}{deviation:.1e}')
    print(
        f'{made.file}: outputs {", ".join(made.outputs)}; largest deviation from PyTorch '
        f'{made.deviation:.1e} ({made.unit})'
    )
    if made.int8:
        before, after = (1000 * seconds for seconds in made.int8.seconds)
        print(
            f'{made.int8.file}: {made.int8.layers} layers in 8 bits, ranges from '
            f'{made.int8.images} images; {before:.1f} ms before, {after:.1f} ms in 8 bits. '
            f'{agreement(made.int8.agreement)}; compare the accuracy of both files with '
            'tools/test.py'
        )


def agreement(share: float | None) -> str:
    """What is said about `Quantised.agreement`."""
    if share is None:
        return 'No image has a detection with a score of 0.3, so nothing was compared with PyTorch'
    return f'Its results agree with PyTorch to {share:.0%}'


if __name__ == '__main__':
    main()
