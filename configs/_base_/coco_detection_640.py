# COCO with the longer side of 640 pixels: the pipelines of coco_detection.py with another Resize.
_base_ = './coco_detection.py'

resize = dict(type='Resize', scale=(640, 640), keep_ratio=True)
train_pipeline = [*_base_.train_pipeline[:2], resize, *_base_.train_pipeline[3:]]
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[2:]]
tta_pipeline = [
    _base_.tta_pipeline[0],
    dict(
        type='TestTimeAug',
        transforms=[[resize], *_base_.tta_pipeline[1].transforms[1:]]),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
