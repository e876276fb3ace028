"""Many runs: listed, compared, kept and deleted. `trainlab.table`, `scalars` and `find` are the way in."""
