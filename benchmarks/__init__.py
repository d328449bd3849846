"""What jobserver-ffi costs, one file for each question: `python -m benchmarks` answers them all."""
