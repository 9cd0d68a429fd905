"""Tuned values: which one each row has, and what its reader must know of the choice."""
