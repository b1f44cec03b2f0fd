"""Coloured textures for the shapes data set, in integer arithmetic only.

Backgrounds, distractors and objects all use the one distribution in `draw_texture`, so neither
colour nor texture reveals whether there is an object, or its class.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightvit_mm.shapes.raster import COSINE, FULL_TURN, SINE, SUBPIXELS, UNIT

Pattern = NDArray[np.int64]
"""(H, W) values 0..255 that blend a texture's two colours."""

_SUBPIXEL_SHIFT = (UNIT // SUBPIXELS).bit_length() - 1


def draw_texture(
    generator: np.random.Generator, height: int, width: int, colour_spread: int
) -> NDArray[np.uint8]:
    """A random texture: one of five patterns between two random colours.

    Args:
        generator: Source of randomness.
        height: Rows.
        width: Columns.
        colour_spread: Largest difference between the two colours in a channel, 0..255.

    Returns:
        (height, width, 3) RGB.
    """
    first = generator.integers(20, 236, size=3)
    spread = generator.integers(-colour_spread, colour_spread + 1, size=3)
    second = np.clip(first + spread, 0, 255)
    patterns = (_clouds, _stripes, _checks, _specks, _slope)
    pattern = patterns[int(generator.integers(len(patterns)))](generator, height, width)
    # A look-up in all 256 blends is several times faster than blending every pixel.
    blends = first + (np.arange(256)[:, None] * (second - first) >> 8)
    return blends.astype(np.uint8)[pattern]


def value_noise(generator: np.random.Generator, height: int, width: int, cell: int) -> Pattern:
    """Smooth noise: random values on a square lattice, interpolated in between.

    Args:
        generator: Source of randomness.
        height: Rows.
        width: Columns.
        cell: Lattice pitch in px.

    Returns:
        (height, width) values 0..255.
    """
    lattice = generator.integers(0, 256, size=(height // cell + 2, width // cell + 2))
    row_cells, row_weights = _lattice_positions(height, cell)
    column_cells, column_weights = _lattice_positions(width, cell)
    above, below = lattice[row_cells], lattice[row_cells + 1]
    rows = above + ((below - above) * row_weights[:, None] >> 8)
    left, right = rows[:, column_cells], rows[:, column_cells + 1]
    return left + ((right - left) * column_weights >> 8)


def along_direction(angle: int, height: int, width: int) -> Pattern:
    """Position of each pixel along a direction.

    Args:
        angle: In 1/1024 turn, clockwise from east on the screen.
        height: Rows.
        width: Columns.

    Returns:
        (height, width) distances from the upper left pixel in 1/16 px; may be negative.
    """
    horizontal = np.arange(width) * COSINE[angle % FULL_TURN]
    vertical = np.arange(height) * SINE[angle % FULL_TURN]
    return (vertical[:, None] + horizontal) >> _SUBPIXEL_SHIFT


def _lattice_positions(length: int, cell: int) -> tuple[Pattern, Pattern]:
    positions = np.arange(length)
    linear = (positions % cell) * 256 // cell
    # Smoothstep, 3t^2 - 2t^3, removes the creases along the lattice lines.
    return positions // cell, linear * linear * (768 - 2 * linear) >> 16


def _clouds(generator: np.random.Generator, height: int, width: int) -> Pattern:
    cell = int(generator.integers(6, 33))
    coarse = value_noise(generator, height, width, cell)
    return (2 * coarse + value_noise(generator, height, width, max(cell // 3, 2))) // 3


def _stripes(generator: np.random.Generator, height: int, width: int) -> Pattern:
    distance = along_direction(int(generator.integers(FULL_TURN)), height, width)
    period = int(generator.integers(4, 21)) * SUBPIXELS
    wave = np.abs(2 * (distance % period) - period) * 255 // period
    if generator.integers(2):
        return np.where(wave < 128, 0, 255)
    return wave


def _checks(generator: np.random.Generator, height: int, width: int) -> Pattern:
    angle = int(generator.integers(FULL_TURN))
    side = int(generator.integers(3, 15)) * SUBPIXELS
    columns = along_direction(angle, height, width) // side
    rows = along_direction(angle + FULL_TURN // 4, height, width) // side
    return ((columns + rows) & 1) * 255


def _specks(generator: np.random.Generator, height: int, width: int) -> Pattern:
    grain = value_noise(generator, height, width, int(generator.integers(2, 5)))
    return np.where(grain < int(generator.integers(70, 130)), 255, 0)


def _slope(generator: np.random.Generator, height: int, width: int) -> Pattern:
    distance = along_direction(int(generator.integers(FULL_TURN)), height, width)
    distance -= distance.min()
    return distance * 255 // max(int(distance.max()), 1)
