"""Trackers: ``track: [tensorboard]`` of a sweep is the entry ``tensorboard.py`` of this folder.

An entry names the package that it needs (``PACKAGE``) and the command that installs it (``INSTALL``), and has a class
``Tracker`` as below. It imports the package only within this class, so that the others work without it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

PROJECT = "sam3-bench"
STEP = "training_iteration"
"""Name of the epoch among the metrics of W&B and MLflow, as in runs of earlier versions."""
Value = bool | int | float | str


class Run(Protocol):
    """A trial as a run of a tracker. A method that fails raises any exception."""

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Logs metrics at an epoch, which is counted from 1."""

    def close(self, failed: bool) -> None:
        """Ends the run."""


class Tracker(Protocol):
    """A tracker that records the trials of a sweep."""

    def __init__(self, sweep: str, folder: Path) -> None:
        """sweep: its name. folder: where local files go. Raises any exception where the tracker cannot be used."""

    def start(self, trial_id: str, name: str, parameters: Mapping[str, Value]) -> Run:
        """Starts a run; again for a trial that is started once more."""

    def close(self) -> None:
        """Waits until all runs that were closed are stored."""
