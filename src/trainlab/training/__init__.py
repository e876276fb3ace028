"""Training recorded in a run: with Lightning, by parts or by `Trainer`, and with the Transformers Trainer."""
