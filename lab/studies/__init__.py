"""Measurements behind claims of the documentation, one script per claim; run them with ``python -m``."""
