"""Exact rasterising, boundary tracing and run lengths for the shapes data set.

Everything here is integer arithmetic, so that the same input gives the same pixels on every
machine. Vertices are in 1/16 px; pixel (column, row) covers the unit square whose upper left corner
is (column, row), and belongs to a polygon if its centre does.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SUBPIXELS = 16
"""Vertex units in a pixel."""
FULL_TURN = 1024
"""Angle units in a full turn."""
UNIT = 1 << 14
"""The length 1 in ``SINE``, ``COSINE`` and in outlines that have not been scaled yet."""

# The nearest that any entry comes to a rounding tie is 4e-4, far above what two maths libraries
# differ by, so the table is the same integers everywhere.
SINE: NDArray[np.int64] = np.array(
    [round(UNIT * math.sin(2 * math.pi * angle / FULL_TURN)) for angle in range(FULL_TURN)],
    dtype=np.int64,
)
"""Sine of every angle, in 1/``UNIT``."""
COSINE: NDArray[np.int64] = np.roll(SINE, -FULL_TURN // 4)
"""Cosine of every angle, in 1/``UNIT``."""

# Directions on the pixel grid, clockwise on the screen: east, south, west, north.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))

Point = tuple[int, int]


def fill_polygon(vertices: NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside a polygon, by the even-odd rule.

    Args:
        vertices: (V, 2) x and y in 1/16 px; may lie outside the image.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        (height, width) mask. Polygons that share an edge never share a pixel or leave a gap.
    """
    # A pixel centre is right of an edge if its edge function is >= 0. Along a row that function is
    # linear in the column, so each edge is solved once a row for the first column where it holds,
    # and a running parity does the rest.
    following = np.roll(vertices, -1, axis=0)
    downward = (vertices[:, 1] <= following[:, 1])[:, None]
    upper = np.where(downward, vertices, following)
    run, rise = np.where(downward, following - vertices, vertices - following).T[:, :, None]
    half = SUBPIXELS // 2
    top = min(max(int(upper[:, 1].min()) // SUBPIXELS, 0), height)
    bottom = max(min(int(vertices[:, 1].max()) // SUBPIXELS + 1, height), top)
    rows = np.arange(top, bottom)
    depth = rows * SUBPIXELS + half - upper[:, 1:]
    # Each edge takes its upper end and leaves its lower one to the next edge; level ones take none.
    crosses = (depth >= 0) & (depth < rise)
    crossing = (upper[:, :1] - half) * rise + depth * run
    columns = np.clip(-(-crossing // np.maximum(SUBPIXELS * rise, 1)), 0, width)
    cells = ((rows - top) * (width + 1) + columns)[crosses]
    toggles = np.bincount(cells, minlength=(bottom - top) * (width + 1)).astype(np.uint8)
    toggles = toggles.reshape(bottom - top, width + 1)[:, :width]
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom] = np.bitwise_xor.accumulate(toggles & 1, axis=1)
    return mask


def twice_area(vertices: NDArray[np.int64]) -> int:
    """Twice the signed area of a polygon, positive if it runs clockwise on the screen.

    Args:
        vertices: (V, 2) x and y.

    Returns:
        Twice the area in the square of the vertices' unit.
    """
    following = np.roll(vertices, -1, axis=0)
    return int(np.sum(vertices[:, 0] * following[:, 1] - following[:, 0] * vertices[:, 1]))


def tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Smallest box around a mask's pixels.

    Args:
        mask: (H, W), with at least one pixel set.

    Returns:
        x, y, width and height in px; x and y are the box's upper left pixel edges.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def trace_polygons(mask: NDArray[np.bool_]) -> list[list[int]]:
    """Polygons along the pixel edges of a mask, which rasterise back to exactly that mask.

    COCO polygons cannot carry holes: a part with a hole is cut in two along a column through it.
    The cuts lie on pixel edges, so the polygons still tile the mask without overlap.

    Args:
        mask: (H, W).

    Returns:
        One flat list x0, y0, x1, y1, ... in px for each part, corners only, clockwise on the
        screen, upper left part first. Pixels that touch at a corner alone are separate parts.
    """
    if not mask.any():
        return []
    left, top, width, height = tight_box(mask)
    window = mask[top : top + height, left : left + width]
    loops = _boundary_loops(window)
    areas = [twice_area(np.array(loop, dtype=np.int64)) for loop in loops]
    hole = next((loop for loop, area in zip(loops, areas, strict=True) if area < 0), None)
    if hole is None:
        return [[value for x, y in loop for value in (x + left, y + top)] for loop in loops]
    cut = left + (min(x for x, _ in hole) + max(x for x, _ in hole)) // 2
    columns = np.arange(mask.shape[1])
    return trace_polygons(mask & (columns < cut)) + trace_polygons(mask & (columns >= cut))


def _boundary_loops(mask: NDArray[np.bool_]) -> list[list[Point]]:
    """Corner lists of all boundary loops, with the mask on the right-hand side of the walk."""
    padded = np.pad(mask, 1)
    # Per direction, the grid points where a boundary edge of unit length starts: the mask's pixel
    # lies to the right of the edge, and the pixel to its left is clear.
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    starts = (
        lower_right & ~upper_right,
        lower_left & ~lower_right,
        upper_left & ~lower_left,
        upper_right & ~upper_left,
    )
    edges = {
        ((x, y), direction): None
        for direction, grid in enumerate(starts)
        for y, x in np.argwhere(grid).tolist()
    }

    loops = []
    pending = dict(edges)
    while pending:
        # Edges come eastward first and in reading order, so the first one left starts at a corner.
        edge, previous = next(iter(pending)), -1
        loop: list[Point] = []
        while edge in pending:
            del pending[edge]
            (x, y), direction = edge
            if direction != previous:
                loop.append((x, y))
            previous = direction
            end = (x + _STEPS[direction][0], y + _STEPS[direction][1])
            # Right turn first: where two pixels touch at a corner alone, stay with one's own.
            candidates = ((end, (direction + turn) % 4) for turn in (1, 0, 3))
            edge = next(candidate for candidate in candidates if candidate in edges)
        loops.append(loop)
    return loops


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Run lengths of a mask in COCO's order: column by column, starting with a run of clear pixels.

    Args:
        mask: (H, W).

    Returns:
        Lengths that sum to H * W; the first is 0 if the first pixel is set.
    """
    flat = mask.ravel(order='F')
    changes = (np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist()
    lengths = [end - start for start, end in pairwise([0, *changes, flat.size])]
    return [0, *lengths] if flat[0] else lengths
