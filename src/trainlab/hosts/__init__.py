"""One training over several hosts: the same line on each, and a store at which they meet."""
