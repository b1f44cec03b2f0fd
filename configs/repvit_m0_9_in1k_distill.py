# Published: top-1 78.7 in 300 epochs, 79.1 in 450, the best epoch (THU-MIG/RepViT README).
# Recipe: THU-MIG/RepViT. The published run of 300 epochs had a batch of 1536.
_base_ = './_base_/in1k_repvit_distill.py'
model = dict(backbone=dict(arch='m0_9'))
train_dataloader = dict(batch_size=192)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
auto_scale_lr = dict(base_batch_size=1536)
