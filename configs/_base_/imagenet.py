data_root = 'data/imagenet/'
how_to_get_data = (
    'ImageNet-1k (https://image-net.org, needs an account): put ILSVRC2012_img_train.tar, '
    'ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz into one folder as they are, or '
    'unpack them to train/ and val/ with a folder for each class.')

train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    # Started anew with each epoch, they draw in a resumed run what they would have drawn.
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ClassFolders',
        data_root=data_root,
        data_prefix=dict(img='train'),
        transform=dict(input_size=224, is_training=True, interpolation='bicubic')))
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ClassFolders',
        data_root=data_root,
        data_prefix=dict(img='val'),
        # The shorter side is resized to 256.
        transform=dict(input_size=224, crop_pct=0.875, interpolation='bicubic')))
test_dataloader = val_dataloader

val_evaluator = dict(type='TopAccuracy')
test_evaluator = val_evaluator
