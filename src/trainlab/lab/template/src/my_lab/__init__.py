"""A small experiment: two spirals in the plane, told apart by a network of three layers."""
