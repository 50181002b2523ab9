"""Does distillation help? Sets × students × seeds, each student beside its control, with intervals.

    python -m edgekd.benchmarks.suites.distillation plan OUT       the cells, and a makefile that runs them
    make -C OUT -j 2                                               runs what is missing, two cells at a time
    python -m edgekd.benchmarks.suites.distillation report OUT     the tables and the picture

A cell is one process, one JSON file and one run folder; an interrupted one goes on where it stood.
"""
