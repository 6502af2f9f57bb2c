"""`baselines/` is installed as `casl_bench_baselines`: others, too, are called `baselines`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["casl_bench", "casl_bench.*"]), "casl_bench_baselines"],
    package_dir={"casl_bench_baselines": "baselines"},
)
