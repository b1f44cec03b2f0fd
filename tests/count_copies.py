"""Copies in one forward pass at 512x512, the original's and ours: python tests/count_copies.py"""

import torch
from compare_speed import VARIANTS, originals, ours
from torch import nn
from torch.profiler import ProfilerActivity, profile


def copies(model: nn.Module, x: torch.Tensor) -> tuple[int, float]:
    """How many there are, and what they write in megabytes."""
    with torch.inference_mode():
        model(x)  # packs its weights
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
            model(x)
    shapes = [event.input_shapes[0] for event in profiler.events() if event.name == 'aten::copy_']
    return len(shapes), sum(4 * torch.Size(shape).numel() for shape in shapes) / 1e6


def main() -> None:
    """Print a line a family."""
    torch.set_num_threads(2)  # on one, torch takes other kernels
    image = torch.randn(1, 3, 512, 512)
    turned = image.to(memory_format=torch.channels_last)
    for family, arch in VARIANTS.items():
        theirs = originals(family, train=False)['original']
        # timm's MobileViT is compared in channels_last.
        before = copies(theirs, turned if family == 'MobileViT' else image)
        after = copies(ours(family).eval().switch_to_deploy(), turned)
        print(
            f'{family} {arch}: ', '{} copies, {:.0f} MB; ours {}, {:.0f} MB'.format(*before, *after)
        )


if __name__ == '__main__':
    main()
