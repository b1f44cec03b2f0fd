"""Key layouts of MobileViT.

Apple: apple/ml-cvnets at 7771756, for classifiers and, under ``encoder.``, for detectors and
segmentors. timm: huggingface/pytorch-image-models at aa4b585. mmpretrain: open-mmlab/mmpretrain at
ee7f2e8, under ``backbone.``.
"""

from lightvit_mm.checkpoints.layout import Layout

__all__ = ['LAYOUTS']


def _stage_names(stem: str, stage: str, first: int) -> tuple[tuple[str, str], ...]:
    """Renames of the stem and the four stages, which other layouts number consecutively.

    Args:
        stem: pattern of the first convolution's name.
        stage: pattern before the number of a stage.
        first: number of the stage that belongs to our stem.
    """
    stages = range(first + 1, first + 5)
    return (
        (rf'^{stem}\.', 'stem.0.'),
        (rf'^{stage}{first}\.0\.', 'stem.1.'),
        *((rf'^{stage}{n}\.0\.', f'stages.{n - first - 1}.downsample.') for n in stages),
        # Their block 0 is the downsampling; the released variants have one or two more blocks.
        *(
            (rf'^{stage}{n}\.{block}\.', f'stages.{n - first - 1}.blocks.{block - 1}.')
            for n in stages
            for block in (1, 2)
        ),
    )


LAYOUTS = (
    Layout(
        name='Apple',
        renames=(
            (r'\.block\.', '.'),
            *_stage_names('conv_1', 'layer_', first=1),
            (r'\.local_rep\.conv_3x3\.', '.conv_kxk.'),
            (r'\.local_rep\.conv_1x1\.conv\.', '.conv_1x1.'),
            (r'\.exp_1x1\.', '.expand.'),
            (r'\.conv_3x3\.', '.depthwise.'),
            (r'\.red_1x1\.', '.reduce.'),
            (r'\.global_rep\.\d+\.(weight|bias)$', r'.norm.\1'),
            (r'\.global_rep\.', '.transformer.'),
            (r'\.pre_norm_mha\.0\.', '.norm1.'),
            (r'\.pre_norm_mha\.1\.qkv_proj\.', '.attn.qkv.'),
            (r'\.pre_norm_mha\.1\.out_proj\.', '.attn.proj.'),
            (r'\.pre_norm_ffn\.0\.', '.norm2.'),
            (r'\.pre_norm_ffn\.1\.', '.mlp.fc1.'),
            (r'\.pre_norm_ffn\.4\.', '.mlp.fc2.'),
            (r'\.fusion\.', '.conv_fusion.'),
        ),
        dropped=r'classifier\.',
    ),
    Layout(
        name='timm',
        renames=(
            *_stage_names('stem', r'stages\.', first=0),
            (r'\.bn\.', '.norm.'),
            (r'\.conv1_1x1\.', '.expand.'),
            (r'\.conv2_kxk\.', '.depthwise.'),
            (r'\.conv3_1x1\.', '.reduce.'),
            (r'^final_conv\.', 'conv_1x1_exp.'),
        ),
        dropped=r'head\.',
    ),
    Layout(
        name='mmpretrain',
        renames=(
            *_stage_names('stem', r'layers\.', first=0),
            (r'\.bn\.', '.norm.'),
            (r'\.local_rep\.0\.', '.conv_kxk.'),
            (r'\.local_rep\.1\.conv\.', '.conv_1x1.'),
            (r'\.conv\.0\.', '.expand.'),
            (r'\.conv\.1\.', '.depthwise.'),
            (r'\.conv\.2\.', '.reduce.'),
            (r'\.global_rep\.\d+\.(weight|bias)$', r'.norm.\1'),
            (r'\.global_rep\.', '.transformer.'),
            (r'\.ln(\d)\.', r'.norm\1.'),
            (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
            (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
        ),
        dropped=r'head\.',
    ),
)
