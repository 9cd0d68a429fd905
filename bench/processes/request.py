"""The request for a trial: which trial runs, with which resources, and where its record goes."""

import json
from dataclasses import asdict, dataclass

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Request:
    """A trial to run. Its record goes to ``folder``, and its training states to a folder within it."""

    config: str  # a ``TrialConfig`` as JSON
    folder: str
    threads: int
    checkpoint_seconds: float
    trials_at_once: int = 1
    gpus: int = 1  # with more than one, it is trained data parallel by a worker for each
    node: str | None = None  # the cluster's name for the machine
    visible_devices: str | None = None  # value of ``CUDA_VISIBLE_DEVICES``

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Request":
        return cls(**json.loads(text))
