# Published: top-1 74.4 (channel-shuffle paper; derived from its gain over plain DeiT's 72.2).
# Recipe: the first author's fork. The rescaling is learnable here and absent there.
_base_ = './_base_/in1k_shuffle_deit.py'
model = dict(backbone=dict(arch='tiny'))
