import subprocess
import sys

import pytest

SCRIPT = """
import sys, torch
from lightvit_mm.engine.memory import keep_freed_memory

def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4096

kept = keep_freed_memory() if sys.argv[1] == 'keep' else False
before = resident()
for _ in range(2):
    torch.ones(2**26)
print(kept, resident() - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_of_a_freed_tensor_is_kept():
    def grown(choice: str) -> tuple[str, int]:
        command = [sys.executable, '-c', SCRIPT, choice]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        kept, size = output.split()[-2:]
        return kept, int(size)

    kept, size = grown('keep')
    if kept == 'False':
        pytest.skip('not the C library of GNU')
    assert size > 200e6
    assert grown('leave')[1] < 100e6
