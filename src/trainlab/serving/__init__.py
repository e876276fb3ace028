"""What a trained run becomes for those who only use it: a bundle, checked, and run without torch."""
