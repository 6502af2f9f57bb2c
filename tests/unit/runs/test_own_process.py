"""No process outlives a command that was killed."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

DRIVER = """
import os, sys, time
from casl_bench.runs.own_process import own_process

pool = own_process(3)
print(pool.submit(os.getpid).result(), pool.submit(os.getenv, "OMP_NUM_THREADS").result())
sys.stdout.flush()
if sys.argv[1] == "busy":
    pool.submit(time.sleep, 600)
time.sleep(600)
"""


def is_there(pid: int) -> bool:
    try:
        # Where nobody waits for orphans, one that has ended stays in the list.
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_process_ends_with_the_killed_one_that_it_works_for(state: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, state], stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        pid, threads = map(int, driver.stdout.readline().split())
        assert is_there(pid) and threads == 3
        driver.kill()
    end = time.monotonic() + 10
    while is_there(pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_there(pid)
