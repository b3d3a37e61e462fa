"""How fast and how small the worker is, measured against the sandbox. Run with `python -m tests.bench`."""
