"""Objects in checkpoints that are not tensors: which ones are allowed, and how they are made.

A pickle calls what it likes of the allowed globals, with any arguments, in any order. Those of
numpy and mmengine were not written for this: ``numpy.ndarray`` reads the memory that it is told to,
and so does ``numpy.array`` of an object with a forged ``__array_interface__``. So the globals here
only keep what the file says. Once torch has read all of it, `rebuild` makes the objects with
arguments that it has checked.
"""

from __future__ import annotations

import argparse
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

HISTORY_STATISTICS = ('current', 'max', 'mean', 'min')
# Booleans, integers, floating-point numbers and texts, as numpy.dtype writes them: no objects (in
# memory these are pointers), no records, no arrays of arrays.
SCALAR_TYPES = re.compile(r'b1|[iu][1248]|f[248]|U\d+')
MAX_DEPTH = 100
MAX_EXPANDED = 1 << 30


class RefusedError(ValueError):
    """Something in a file that weights never need; the message says what."""


class _Part(ABC):
    """What a file says about one object: unchecked, and not used before `rebuild`."""

    arguments: tuple
    state: Any

    def __new__(cls, *arguments: Any) -> _Part:
        part = super().__new__(cls)
        part.arguments = arguments
        part.state = None
        return part

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @abstractmethod
    def build(self) -> Any:
        """Make the object, or raise RefusedError."""


class _DType(_Part):
    def build(self) -> np.dtype:
        code = self.arguments[0] if self.arguments else None
        if not isinstance(code, str) or not SCALAR_TYPES.fullmatch(code):
            raise RefusedError('it holds a numpy.dtype other than numbers and text')
        if self.state is None:
            return np.dtype(code)
        # The rest of the state (item size, alignment, flags) follows from the code.
        _, order, *structure = self.state[:5]
        if order not in ('<', '>', '|', '=') or any(part is not None for part in structure):
            raise RefusedError('it holds a numpy.dtype with a structure')
        return np.dtype(code).newbyteorder(order)


class _Array(_Part):
    def build(self) -> np.ndarray:
        if self.arguments or not isinstance(self.state, tuple):
            raise RefusedError('loading it would call numpy.ndarray')
        _, shape, dtype, fortran, data = self.state
        return _values(dtype, shape, data, 'F' if fortran is True else 'C')


class _History(_Part):
    def build(self) -> HistoryBuffer:
        if self.arguments or not isinstance(self.state, dict):
            raise RefusedError('loading it would call HistoryBuffer')
        history = HistoryBuffer()  # has its statistics; those in the file would apply to all
        length = self.state['max_length']
        arrays = self.state['_log_history'], self.state['_count_history']
        if type(length) is not int or not all(isinstance(array, _Array) for array in arrays):
            raise RefusedError('it holds a HistoryBuffer of something other than arrays')
        log, count = (array.build() for array in arrays)
        if log.ndim != 1 or log.shape != count.shape or 'U' in (log.dtype.kind, count.dtype.kind):
            raise RefusedError(
                'it holds a HistoryBuffer of something other than two lists of numbers'
            )
        history.max_length, history._log_history, history._count_history = length, log, count
        return history


class _Namespace(_Part):
    def build(self) -> argparse.Namespace:
        state = {} if self.state is None else self.state
        if self.arguments or not isinstance(state, dict):
            raise RefusedError('loading it would call argparse.Namespace')
        # numpy and torch look for special names in any object, and believe what they find.
        if not all(isinstance(name, str) and not name.startswith('__') for name in state):
            raise RefusedError('it holds an argparse.Namespace with special names')
        return argparse.Namespace(**state)


def _values(dtype: object, shape: object, data: object, order: Literal['C', 'F']) -> np.ndarray:
    if not (isinstance(dtype, _DType) and isinstance(shape, tuple) and isinstance(data, bytes)):
        raise RefusedError('it holds a numpy array that is not made of a type, a shape and bytes')
    values: np.ndarray = np.ndarray(shape, dtype.build(), data, order=order)
    # Empty texts take no bytes, whatever their number.
    fits = values.shape == shape and values.nbytes == len(data)
    if not fits or values.size > max(len(data), 1):
        raise RefusedError('it holds a numpy array whose shape does not match its bytes')
    if values.dtype.kind == 'b':
        return values.view('u1') != 0  # numpy counts on 0 and 1
    if values.dtype.kind == 'U':
        values.tolist()  # raises ValueError for what is not text
    return values.copy(order)


def _reconstruct(*arguments: Any) -> _Array:
    """Stand-in for numpy's function: an empty array, filled by its state."""
    return _Array()


def _scalar(*arguments: Any) -> Any:
    """Stand-in for numpy's function: one number or text, made at once since it can be a key."""
    dtype, data = arguments
    return _values(dtype, (), data, 'C')[()]


def _history_getattr(owner: object, name: object) -> str:
    """Stand-in for ``builtins.getattr``: mmengine names the statistics of HistoryBuffer with it."""
    if owner is _History and isinstance(name, str) and name in HISTORY_STATISTICS:
        return name
    raise RefusedError('loading it would call getattr')


def _empty_bytes() -> bytes:
    """Stand-in for ``bytes``: old pickles write ``b''`` as a call without arguments."""
    return b''


# What a file can make each of them do, with any arguments, is in the comment next to it.
ALLOWED_GLOBALS: list[Callable | tuple[Callable, str]] = [
    # Keep arguments and state. `rebuild` makes the object from checked ones, or refuses.
    (_DType, 'numpy.dtype'),
    (_Array, 'numpy.ndarray'),
    (_History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_Namespace, 'argparse.Namespace'),
    *(
        entry
        for core in ('numpy.core', 'numpy._core')  # numpy 2 renamed it; files use either name
        for entry in (
            # Makes an _Array without arguments.
            (_reconstruct, f'{core}.multiarray._reconstruct'),
            # Makes one number or text from as many bytes as its type has, which are in the file.
            (_scalar, f'{core}.multiarray.scalar'),
        )
    ),
    # Returns one of four names, which nothing uses.
    (_history_getattr, 'builtins.getattr'),
    # Returns b''.
    (_empty_bytes, 'builtins.bytes'),
]


def rebuild(content: Any) -> Any:
    """Replace what the allowed globals kept by the objects themselves, in place where possible.

    Raises:
        RefusedError: an object is not one that a training script writes, or the content is nested
            too deep (it can even contain itself).
    """
    # By id, with the original, since an id is free for others when its object is gone.
    done: dict[int, tuple[Any, Any]] = {}

    def visit(value: Any, depth: int) -> Any:
        if id(value) not in done:
            if depth > MAX_DEPTH:
                raise RefusedError(f'it holds dicts or lists more than {MAX_DEPTH} deep')
            done[id(value)] = value, replace(value, depth + 1)
        return done[id(value)][1]

    def replace(value: Any, depth: int) -> Any:
        if isinstance(value, _Part):
            value = value.build()
        if isinstance(value, argparse.Namespace):
            replace(vars(value), depth)
        elif isinstance(value, dict):
            for key, item in value.items():
                value[key] = visit(item, depth)
        elif isinstance(value, list):
            value[:] = [visit(item, depth) for item in value]
        elif isinstance(value, torch.Tensor) and value.layout is torch.strided:
            # A stride of 0 repeats a few values as often as the file says.
            if value.nbytes > max(MAX_EXPANDED, value.untyped_storage().nbytes()):
                raise RefusedError(
                    f'it holds a tensor of {value.nbytes} bytes made of a few values'
                )
        elif type(value) is tuple:
            return tuple(visit(item, depth) for item in value)
        return value

    return visit(content, 0)
