# EdgeViT (saic-fi/edgevit, src/main.py): DeiT's training, 5e-4 per 512 images, in mixed precision
# (--amp).
_base_ = './recipe_deit.py'
model = dict(
    backbone=dict(type='EdgeViT', out_indices=(3, ), out_norm=True, drop_path_rate=0.1))
