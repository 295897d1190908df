"""Networks at work: picture files in, restored picture files out, and scores on whole benchmarks."""
