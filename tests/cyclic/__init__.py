"""Random programs whose objects end in reference cycles; `tests/cycles.py` runs them."""
