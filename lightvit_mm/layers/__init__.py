"""What two or more families share."""

from mmcv.cnn.bricks import DropPath

from lightvit_mm.layers.channel_shuffle import ChannelShuffle
from lightvit_mm.layers.checkpointing import checkpoint
from lightvit_mm.layers.conv_norm import ConvNorm, ConvNormAct
from lightvit_mm.layers.initialise import init_linear
from lightvit_mm.layers.mlp import Mlp
from lightvit_mm.layers.padding import pad_grid_to_multiple, pad_to_multiple
from lightvit_mm.layers.position import resize_position
from lightvit_mm.layers.squeeze_excite import SqueezeExcite
from lightvit_mm.layers.stage import Stage
from lightvit_mm.layers.transformer import TransformerBlock

__all__ = [
    'ChannelShuffle',
    'ConvNorm',
    'ConvNormAct',
    'DropPath',
    'Mlp',
    'SqueezeExcite',
    'Stage',
    'TransformerBlock',
    'checkpoint',
    'init_linear',
    'pad_grid_to_multiple',
    'pad_to_multiple',
    'resize_position',
]
