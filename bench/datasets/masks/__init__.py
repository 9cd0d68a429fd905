"""Mask files: which pixels are object, background or ignored, or which class each pixel has.

Trials, ``bench.score`` and ``bench.data`` all read masks here, and nothing is guessed. A mask is refused if the
lightness of a colour or of a grey level would decide which pixels are the object. The error lists the values that the
mask holds and names the setting that decides.
"""
