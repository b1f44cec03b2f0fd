"""What two or more families use."""

from lightvit_mm.layers.channel_shuffle import ChannelShuffle
from lightvit_mm.layers.checkpointing import checkpoint
from lightvit_mm.layers.conv_norm import ConvNorm, chain
from lightvit_mm.layers.drop_path import DropPath
from lightvit_mm.layers.initialise import init_linear
from lightvit_mm.layers.lean import feed_forward, norm_act_conv
from lightvit_mm.layers.padding import pad_to_multiple
from lightvit_mm.layers.position import resize_position
from lightvit_mm.layers.pyramid_levels import pyramid_level
from lightvit_mm.layers.squeeze_excite import SqueezeExcite
from lightvit_mm.layers.stage import Stage
from lightvit_mm.layers.transformer import GlobalAttention, TokenMlp, TransformerBlock

__all__ = [
    'ChannelShuffle',
    'ConvNorm',
    'DropPath',
    'GlobalAttention',
    'SqueezeExcite',
    'Stage',
    'TokenMlp',
    'TransformerBlock',
    'chain',
    'checkpoint',
    'feed_forward',
    'init_linear',
    'norm_act_conv',
    'pad_to_multiple',
    'pyramid_level',
    'resize_position',
]
