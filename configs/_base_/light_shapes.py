# The light detector on the data set of tools/make_shapes.py, from random weights.
_base_ = ['./light.py', './shapes_detection.py', './schedule_shapes.py']
model = dict(
    neck=dict(num_outs=3),
    bbox_head=dict(num_classes=4, anchor_generator=dict(strides=[8, 16, 32])))
