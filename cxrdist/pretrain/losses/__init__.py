"""The losses of self-supervised learning, each in a file of its published name."""
