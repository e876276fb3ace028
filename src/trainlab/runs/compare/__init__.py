"""Which run was better, and why: curves over each other, settings against a metric, cost, a report."""
