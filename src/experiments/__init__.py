"""The examples: each folder is one experiment, and uses nothing of trainlab that your project can't use."""

import warnings

warnings.filterwarnings("ignore", "IProgress not found")  # our bars are plain text, and need no widgets
