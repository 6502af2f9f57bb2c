"""`python -m casl_bench.conformance my_method.py`: does a method keep the benchmark's rules?"""

import sys

from casl_bench.__main__ import main

if __name__ == "__main__":
    sys.exit(main("casl_bench.conformance.check_method"))
