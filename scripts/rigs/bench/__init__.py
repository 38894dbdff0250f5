"""Benchmarks: ratios against a peer or a bound of the same run, from several interleaved repeats."""
