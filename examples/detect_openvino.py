"""Draw a detector's boxes on a photo: python detect_openvino.py MODEL.xml PHOTO OUT

Copy this file and the model (.xml and .bin) to the device: it needs numpy, openvino and OpenCV
(pip install numpy openvino opencv-python-headless), but neither PyTorch nor lightvit_mm. The
input size, the class names and how to resize a photo are in the model's metadata.
"""

import argparse
import json
import os

import cv2
import numpy as np
import openvino


def load(file):
    """Open a model: its metadata, and a function from its input to boxes, scores and labels."""
    core = openvino.Core()
    model = core.read_model(file)
    content = '{}'
    if model.has_rt_info(['lightvit_mm']):
        content = model.get_rt_info(['lightvit_mm']).astype(str)
    # Without this, processors with bfloat16 compute in it, which is faster and changes boxes.
    compiled = core.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return json.loads(content), lambda image: compiled([image]).to_tuple()


def fit(image, made):
    """Resize an image and pad it to the file's input, as in the tests of the detector.

    Args:
        image: (height, width, 3), as OpenCV reads it.
        made: the metadata of the file.

    Returns:
        The input (1, 3, H, W), and the width and height of the image in it.
    """
    (height, width), (full_height, full_width) = image.shape[:2], made['size']
    rule = made['resize']
    if rule['keep_ratio']:
        ratio = min(full_width / width, full_height / height)
        if rule['scale'] is None:
            ratio = min(ratio, rule['scale_factor'])
        else:
            long, short = max(rule['scale']), min(rule['scale'])
            ratio = min(ratio, long / max(height, width), short / min(height, width))
        # mmcv rounds halves up, round() to the even number.
        size = max(1, int(width * ratio + 0.5)), max(1, int(height * ratio + 0.5))
    else:
        size = full_width, full_height
    inputs = np.empty((full_height, full_width, 3), 'float32')
    inputs[:] = rule['pad']
    inputs[: size[1], : size[0]] = cv2.resize(image, size)
    return inputs.transpose(2, 0, 1)[None], size


def main():
    """Read the command line, detect, draw, and print the boxes."""
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('model', help='.xml file of a detector, written by tools/export.py')
    parser.add_argument('photo', help='image to read')
    parser.add_argument('out', help='image to write')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score to draw (0.3)')
    args = parser.parse_args()
    photo = cv2.imread(args.photo)
    if photo is None:
        parser.error(f'{args.photo} is not an image')
    if os.path.exists(args.out) and os.path.samefile(args.photo, args.out):
        parser.error(f'{args.out} is the photo: give another file to write')
    if not cv2.haveImageWriter(args.out):
        parser.error(f'{args.out} needs the suffix of an image, such as .png')
    try:
        made, run = load(args.model)
    except Exception as error:  # the runtime's errors have no common base
        reason = str(error).strip().rpartition('\n')[2]  # before it are places in its source
        parser.error(f'{args.model} is not a file that OpenVINO can run: {reason}')
    if made.get('task') != 'detection':
        parser.error(f'{args.model} is not a detector that tools/export.py wrote')
    image, (width, height) = fit(photo, made)
    boxes, scores, labels = run(image)[:3]
    boxes = boxes.clip(0, [width, height] * 2)
    boxes = boxes * ([photo.shape[1] / width, photo.shape[0] / height] * 2)
    for box, score, label in zip(boxes, scores, labels, strict=True):
        if score < args.score_thr:
            continue
        name = ' '.join(made['classes'][label].split())  # it may have line breaks
        left, top, right, bottom = box.tolist()
        if left == right or top == bottom:  # it was in the padding
            continue
        print(f'{name} {score:.3f} {left:.1f} {top:.1f} {right:.1f} {bottom:.1f}')
        corner = round(left), round(top)
        cv2.rectangle(photo, corner, (round(right), round(bottom)), (0, 0, 255), 2)
        text, start = f'{name} {score:.2f}', (corner[0], max(corner[1], 12))  # inside the picture
        cv2.putText(photo, text, start, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 255))
    if not cv2.imwrite(args.out, photo):
        parser.error(f'{args.out} cannot be written')
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
