"""Try to read checkpoints that attack Python's memory: run by test_unpickling.py.

    python tests/helpers/hostile_pickles.py FOLDER

Prints the name of each case before it is tried, and what became of it after. A process of its own,
so that a crash of the interpreter is seen as one.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from lightvit_mm.checkpoints import CheckpointError, read_checkpoint


class Call:
    """Pickled as a call of any function, followed by any state."""

    def __init__(self, function, *arguments, state=None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


POINTER = b'A' * 8
RECONSTRUCT, SCALAR = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
OBJECT, NUMBER = np.dtype('O'), np.dtype('f8')


def array(shape, dtype, data):
    return Call(RECONSTRUCT, np.ndarray, (0,), b'b', state=(1, shape, dtype, False, data))


def dtype(code, *state):
    return Call(np.dtype, code, False, True, state=(3, '<', *state))


def forged():
    """An object that numpy takes for an array."""
    interface = {'data': (0x41414141, False), 'shape': (1,), 'typestr': '|O', 'version': 3}
    return argparse.Namespace(__array_interface__=interface)


def history(log, count, length=10):
    """A HistoryBuffer with any state."""
    buffer = HistoryBuffer()
    state = {'_log_history': log, '_count_history': count, 'max_length': length}
    buffer.__getstate__ = lambda: state  # pickle asks the object first
    return buffer


def loop() -> list:
    inside: list = []
    inside.append({'again': inside})
    return inside


def nested(depth: int) -> list:
    return [nested(depth - 1)] if depth else []


RECORD = np.dtype([('a', 'O')])
CASES = {
    'array of objects': lambda: Call(np.ndarray, (1,), OBJECT, POINTER),
    'array of objects by name': lambda: Call(np.ndarray, (1,), 'O', POINTER),
    'array of numbers': lambda: Call(np.ndarray, (1,), NUMBER, POINTER),
    'array of records': lambda: Call(np.ndarray, (1,), RECORD, POINTER),
    'reconstructed objects': lambda: array((1,), OBJECT, [1]),
    'reconstructed pointer': lambda: array((1,), OBJECT, POINTER),
    'reconstructed records': lambda: array((1,), RECORD, POINTER),
    'objects without a state': lambda: Call(RECONSTRUCT, np.ndarray, (1,), 'O'),
    'scalar object': lambda: Call(SCALAR, OBJECT, POINTER),
    'scalar record': lambda: Call(SCALAR, RECORD, POINTER),
    'scalar of an array': lambda: Call(SCALAR, np.dtype(('f8', (2,))), POINTER * 2),
    'scalar of one byte': lambda: Call(SCALAR, NUMBER, b'A'),
    'structure in a state': lambda: array(
        (1,), dtype('U2', (OBJECT, (1,)), None, None, 8, 8, 63), POINTER
    ),
    'names in a state': lambda: array(
        (1,), dtype('U2', None, ('a',), {'a': (OBJECT, 0)}, 8, 8, 63), POINTER
    ),
    'shape too large': lambda: array((2**40,), NUMBER, POINTER),
    'shape too small': lambda: array((1,), NUMBER, POINTER * 2),
    'shape that overflows': lambda: array((2**62, 2**62), NUMBER, POINTER),
    'negative shape': lambda: array((-1,), NUMBER, POINTER),
    'many empty texts': lambda: array((2**40,), np.dtype('U0'), b''),
    'text that is none': lambda: array((2,), np.dtype('U1'), POINTER),
    'array for torch': lambda: Call(
        torch._utils._rebuild_device_tensor_from_numpy,
        array((1,), NUMBER, POINTER), torch.float64, 'cpu', False,
    ),
    'forged array': forged,
    'history of a forged array': lambda: Call(HistoryBuffer, [forged()], [1]),
    'history with arguments': lambda: Call(HistoryBuffer, [1.0], [1]),
    'history with a forged state': lambda: history(forged(), forged()),
    'history of texts': lambda: history(np.array(['a']), np.array(['a'])),
    'history of two lengths': lambda: history(np.zeros(3), np.zeros(2)),
    'text for a length': lambda: history(np.zeros(3), np.zeros(3), 'x'),
    'getattr': lambda: Call(getattr, HistoryBuffer, '__init__'),
    'repeated values': lambda: torch.zeros(1).expand(2**45),
    'contains itself': loop,
    'nested': lambda: nested(150),
}  # fmt: skip


def main() -> None:
    file = Path(sys.argv[1]) / 'hostile.pth'
    for name, make in CASES.items():
        torch.save({'state_dict': {}, 'meta': {'x': make()}}, file)
        print(name, end=': ', flush=True)
        try:
            read = repr(read_checkpoint(file)['meta']['x'])[:100]
        except CheckpointError as error:
            read = 'refused' if str(file) in str(error) else f'unclear: {error}'
        except BaseException as error:
            read = f'{type(error).__name__}: {error}'
        print(read, flush=True)


if __name__ == '__main__':
    main()
