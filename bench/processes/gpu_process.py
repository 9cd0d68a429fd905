"""One process of a data parallel trial: ``python -m bench.processes.gpu_process RANK FOLDER``.

Reads the trial (a ``bench.processes.client.Request``) as a line from standard input, meets the others in FOLDER, and leaves its
record in FOLDER/RANK; rank 0 writes one JSON line per epoch to standard output, and empty lines as signs of life. Ends
with its parent, whose end closes the input.
"""

import sys
from datetime import timedelta
from pathlib import Path
from threading import Thread

import torch
import torch.distributed as dist

from bench.config.trial import TrialConfig
from bench.processes.client import Request
from bench.processes.events import end_with_input, telling
from bench.processes.trial_process import checkpoints_of, seldom
from bench.training.data_parallel import Share
from bench.trial import run_trial

PATIENCE = timedelta(days=1)
"""How long a rank waits for the others, which may be busy validating; their parent sees when one of them dies."""


def main(arguments: list[str]) -> int:
    rank, folder = int(arguments[0]), Path(arguments[1])
    request = Request.from_json(sys.stdin.readline())
    Thread(target=end_with_input, daemon=True).start()
    config, share = TrialConfig.model_validate_json(request.config), Share(rank, request.gpus)
    backend = "gloo"
    if config.device == "cuda":
        torch.cuda.set_device(rank)
        backend = "nccl"
    meeting = f"file://{folder.resolve()}/meeting"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=share.of, timeout=PATIENCE)

    with telling() as (tell, alive):  # nobody listens to the ranks above 0
        record = run_trial(
            config,
            threads=max(1, request.threads // share.of),
            trials_at_once=request.trials_at_once,
            on_epoch=tell,
            on_step=seldom(alive),
            checkpoints=checkpoints_of(request, share),
            share=share,
        )
    own = folder / str(rank)
    own.mkdir()
    record.save(own)
    if record.status != "ok":
        return 1  # without waiting for the others, who wait for this one
    dist.barrier()
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
