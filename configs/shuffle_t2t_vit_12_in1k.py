# No published figure was found; plain T2T-ViT has top-1 76.5. Recipe: the first author's fork.
# The rescaling is learnable here and fixed at one half there.
_base_ = './_base_/in1k_shuffle_t2t_vit.py'
model = dict(backbone=dict(arch='12'))
