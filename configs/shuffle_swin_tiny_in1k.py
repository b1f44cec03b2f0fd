# Published: top-1 about 80.8 (channel-shuffle paper; derived from its gain over the plain
# network). Recipe: the first author's fork. The rescaling is learnable here and fixed at one half
# there.
_base_ = './_base_/in1k_shuffle_swin.py'
model = dict(backbone=dict(arch='tiny', drop_path_rate=0.05))
