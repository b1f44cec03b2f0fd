# The levels are those of the official ADE20K configs: each stage with the block that opens the
# next downsampling.
_base_ = './lraspp.py'
model = dict(backbone=dict(type='RepViT', tap='pre_block', norm_eval=True))
