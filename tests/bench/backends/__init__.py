"""The real backend beside DistributedDataParallel, gloo and Horovod on one machine: ``python -m tests.bench.backends``.

``docs/benchmarks.md`` says what is measured and shows the figures.
"""
