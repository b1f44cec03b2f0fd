# The neck makes stride 8 by a transposed convolution, as in the authors' RetinaNet, and has the
# channels of the head, which takes the strides 8 to 64. With stride 4, which Semantic FPN gets here
# as well, M4 would take 23.3 GMACs at 512 x 512 in place of 6.7, of which the backbone has 1.6.
_base_ = ['./segformer.py', './recipe_segformer.py']
model = dict(
    backbone=dict(type='EfficientViT', norm_eval=True),
    neck=dict(type='EfficientViTFPN', out_channels=128, num_extra_trans_convs=1, num_outs=4),
    decode_head=dict(in_channels=[128, 128, 128, 128]))
