"""Experiments around EdgeKD itself; each runs by ``python -m edgekd.benchmarks.suites.NAME``."""
