"""Key layout of EdgeViT's classification code, saic-fi/edgevit ``src/edgevit.py`` at df3d070.

Its authors released no weights; files in this layout come from training with their code.
"""

from lightvit_mm.checkpoints.layout import Layout

__all__ = ['LAYOUTS']


def _stage_names(official_number: int) -> tuple[tuple[str, str], ...]:
    stage = f'stages.{official_number - 1}'
    patch_embed = 'stem' if official_number == 1 else f'{stage}.downsample'
    return (
        (rf'^patch_embed{official_number}\.', f'{patch_embed}.'),
        (rf'^blocks{official_number}\.(\d+)\.', rf'{stage}.blocks.\1.'),
    )


LAYOUTS = (
    Layout(
        name='official',
        renames=(
            *(rename for number in range(1, 5) for rename in _stage_names(number)),
            (r'\.LocalAgg\.', '.local_agg.'),
            (r'\.SelfAttn\.', '.self_attn.'),
            (r'\.LocalProp\.', '.local_prop.'),
            (r'^norm\.', 'out_norm.'),
        ),
        dropped=r'head\.|pre_logits\.',
    ),
)
