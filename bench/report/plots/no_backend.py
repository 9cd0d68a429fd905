"""Imports matplotlib without a backend, before all other imports: figures are drawn on canvases of their own.

matplotlib reads ``MPLBACKEND`` when it is imported and refuses a backend that is not installed. A notebook sets this
variable for every process that it starts.
"""

import os

_inherited = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib  # noqa: F401
finally:
    if _inherited is not None:
        os.environ["MPLBACKEND"] = _inherited  # other libraries may need it
