"""A lab of one's own: a folder with the whole stack, made by `trainlab new`, kept by `trainlab update`."""
