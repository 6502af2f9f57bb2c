"""`python benchmark.py --methods casl,asyrp`: the same as the installed `casl-bench`."""

import sys

from casl_bench.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
