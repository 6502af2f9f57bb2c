"""`python -m casl_bench` is `casl-bench`."""

import signal
import sys


def main() -> int:
    """Run the command line of this process; an interruption is one line also while it loads."""
    try:
        from casl_bench.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    finally:
        # Nothing is left to be interrupted; Python's own end would show a traceback.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
