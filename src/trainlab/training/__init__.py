"""What every experiment that trains with Lightning shares: `fit` records a training in a `Run`."""
