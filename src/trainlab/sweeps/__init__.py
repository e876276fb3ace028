"""Many settings of one training: proposed, run on slots here and elsewhere, pruned, and none lost."""
