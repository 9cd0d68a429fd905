"""One process of a data parallel trial: ``python -m bench.rank RANK COUNT THREADS TRIALS_AT_ONCE FOLDER``.

Reads the trial's JSON as a line from standard input, meets the others in FOLDER, and leaves its record in FOLDER/RANK;
rank 0 writes one JSON line per epoch to standard output, and empty lines as signs of life. Ends with its parent, whose
end closes the input.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path
from threading import Thread

import torch
import torch.distributed as dist

from bench.config import TrialConfig
from bench.parallel import Share
from bench.telling import telling
from bench.trial import run_trial, seldom

PATIENCE = timedelta(days=1)
"""How long a rank waits for the others, which may be busy validating; their parent sees when one of them dies."""


def main(arguments: list[str]) -> int:
    rank, count, threads, trials_at_once = (int(argument) for argument in arguments[:4])
    folder = Path(arguments[4])
    config = TrialConfig.model_validate_json(sys.stdin.readline())
    Thread(target=_end_with_parent, daemon=True).start()
    backend = "gloo"
    if config.device == "cuda":
        torch.cuda.set_device(rank)
        backend = "nccl"
    meeting = f"file://{folder.resolve()}/meeting"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=count, timeout=PATIENCE)

    with telling() as (tell, alive):  # nobody listens to the ranks above 0
        settings = {"threads": threads, "trials_at_once": trials_at_once, "on_epoch": tell, "on_step": seldom(alive)}
        record = run_trial(config, share=Share(rank, count), **settings)
    own = folder / str(rank)
    own.mkdir()
    record.save(own)
    if record.status != "ok":
        return 1  # without waiting for the others, who wait for this one
    dist.barrier()
    dist.destroy_process_group()
    return 0


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
