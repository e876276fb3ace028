"""Executes somebody's code as a run: a notebook or a script."""
