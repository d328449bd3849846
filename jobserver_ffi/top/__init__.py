"""`jobserver top`: a served pool, watched live in a terminal. Needs rich, from the extra `cli`."""
