# No published figure with this backbone; recipe of RTMDet-Ins. No weights were released: it
# starts from random ones.
_base_ = './_base_/rtmdet_ins_shuffle_t2t_vit.py'
model = dict(backbone=dict(arch='10'))
