"""Caches on disk: entries that are made once, and the weights that all trials of a machine share."""
