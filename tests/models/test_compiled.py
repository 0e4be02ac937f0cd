"""One compiled block serves many sizes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "compile_sizes.py"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_block_serves_ten_sizes_and_lengths_with_at_most_two_recompilations(backend):
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler on a CPU")
    # In a process of its own: the checks of shapes that tests run under cannot be traced.
    command = [sys.executable, str(BENCH), "--backend", backend]
    num_graphs, error = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(num_graphs) <= 3
    assert float(error) < 1e-4
