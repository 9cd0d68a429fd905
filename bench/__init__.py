"""The engine: runs sweeps of trials, measures, scores and tabulates. Start reading at ``bench/run.py``."""
