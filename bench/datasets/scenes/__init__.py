"""Painted scenes: every scene is a pure function of a ``numpy.random.Generator`` and of its size.

Notation: ``s`` is the side in pixels. Coordinates run over [-1, 1] with x to the right and y down.
"""
