"""The C library's memory, for runs on CPUs."""

import ctypes

# Numbers of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors for the next ones.

    Without this, glibc gives each block of more than 32 MB back at once, and the system clears its
    pages one by one when the next layer asks for as many again: with images of 800 x 1344 pixels
    that can take longer than the layer itself (docs/performance.md). The process then stays as
    large as it once was.

    Returns:
        Whether the C library is one that can.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, 2**30) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
