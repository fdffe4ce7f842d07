"""Load generator, histograms and report: what `rainfocus-engine bench` and benchmarks/ run."""
