"""The timeline of a build: what `jobserver run --timings` shows."""
