"""The board: pages over all runs, behind Jupyter's login or alone."""
