"""`--plugin` with this file adds the data set `toy_shapes`: a whole run takes seconds."""

from casl_bench.conformance.toy_domain import register_toy_domain

register_toy_domain()
