"""`python -m casl_bench` is `casl-bench`."""

import signal
import sys
from importlib import import_module

from casl_bench.core import stops


def main(module: str = "casl_bench.cli.main") -> int:
    """The exit code of a module's `main`; a stop is one line also while the module loads."""
    try:
        with stops.watched():
            code: int = import_module(module).main()
            return code
    except BaseException as error:
        if not (stops.came or isinstance(error, KeyboardInterrupt)):
            raise
        return stops.say_stopped(error)
    finally:
        # Nothing is left to be interrupted; Python's own end would show a traceback.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
