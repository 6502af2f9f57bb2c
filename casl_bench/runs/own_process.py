"""A process that works for this one, and ends when this one is gone, however it went.

A killed command can tell its processes nothing, and those that wait for work would wait for ever.
"""

from __future__ import annotations

import os
import threading
import time

from joblib.externals.loky.process_executor import ProcessPoolExecutor

LOOKS = 1.0
"""Seconds between two looks at who the parent is."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What libraries read the number of their threads from, once, as they are loaded."""


def own_process(threads: int) -> ProcessPoolExecutor:
    """A pool of one process, which is started with its first task.

    Args:
        threads: CPU threads that it computes with.
    """
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return ProcessPoolExecutor(
        max_workers=1, env=variables, initializer=_end_with, initargs=(os.getpid(),)
    )


def _end_with(parent: int) -> None:
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    # An orphan is given another parent.
    while os.getppid() == parent:
        time.sleep(LOOKS)
    os._exit(1)
