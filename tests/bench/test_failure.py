import subprocess
import sys

import pytest

BOUND = """
import torch
from finevote.bench import failure
failure.free_bytes = lambda: 2**29
with failure.bounded_memory("cpu"):
    torch.zeros(2**26 // 4)
    try:
        torch.zeros(2**30 // 4)
    except RuntimeError as error:
        print(failure.describe_failure(error))
torch.zeros(2**30 // 4)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
def test_what_exceeds_the_free_memory_fails_and_the_bound_ends_with_the_block():
    done = subprocess.run([sys.executable, "-c", BOUND], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "does not fit into memory\n"), done.stderr
