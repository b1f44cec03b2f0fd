"""Key layouts of EdgeViT: the authors' classification code, and the weights that EasyCV released.

The authors' code is saic-fi/edgevit ``src/edgevit.py`` at df3d070; they released no weights.
alibaba/EasyCV at 901ff18 trained its copy of that code and released all three variants; its files
have the same names under ``backbone.``, with the classifier ``head.fc_cls`` beside them.
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


OFFICIAL_NAMES = (
    *(rename for number in range(1, 5) for rename in _stage_names(number)),
    (r'\.LocalAgg\.', '.local_agg.'),
    (r'\.SelfAttn\.', '.self_attn.'),
    (r'\.LocalProp\.', '.local_prop.'),
    (r'^norm\.', 'out_norm.'),
)
LAYOUTS = (
    Layout(name='official', renames=OFFICIAL_NAMES, dropped=r'head\.|pre_logits\.'),
    Layout(
        name='EasyCV',
        renames=((r'^backbone\.', ''), *OFFICIAL_NAMES),
        dropped=r'head\.fc_cls\.',
        mark='head.fc_cls.weight',
    ),
)
