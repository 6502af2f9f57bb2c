"""`python -m casl_bench` is `casl-bench`."""

import sys

from casl_bench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
