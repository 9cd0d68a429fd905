"""Commands for developers: predicted and measured memory, speed against upstream, weights of the tiny encoder."""
