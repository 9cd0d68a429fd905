"""Imports matplotlib without a backend, before all else in this folder: figures are drawn on canvases of their own.

matplotlib checks ``MPLBACKEND`` when it is imported and refuses what is not installed. A notebook sets that variable
for every process that it starts.
"""

import os

_inherited = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib  # noqa: F401
finally:
    if _inherited is not None:
        os.environ["MPLBACKEND"] = _inherited  # it is not ours to change
