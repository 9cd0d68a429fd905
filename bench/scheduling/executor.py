"""Where the trials of a sweep run: one after another or at the same time on this machine, or on a Ray cluster's nodes."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.datasets.core.sources import Source, fetch
from bench.processes.client import ForkServer
from bench.scheduling import serial
from bench.scheduling.cluster import Preflight
from bench.scheduling.preflight import absent_of, prepare_data, prepare_weights
from bench.scheduling.resources import Resources, check_parallel
from bench.scheduling.run_order import longest_first, seed_by_seed
from bench.scheduling.trial_queue import TrialQueue
from bench.system.interrupt import Interrupts
from bench.system.process_tree import ProcessTree
from bench.system.progress import Progress
from models.core.registry import Config, Missing


class Executor(ExitStack):
    """Checks what the trials lack, prepares what they need, and runs them.

    The connection to Ray and the fork server last until the exit.
    """

    def __init__(
        self,
        resources: Resources,
        by_ray: bool,
        counts: Mapping[str, Mapping[str, int]],
        sources: Sequence[Source] = (),
        validated_by: str | None = None,
    ) -> None:
        """counts: numbers of parameters by trial id, from which the run time is predicted; sources: where missing data
        and weights are fetched from; validated_by: the setting that needs a validation split, as
        ``bench.scheduling.preflight.prepare_data`` takes it.

        All methods raise ``ConfigError``.
        """
        super().__init__()
        self.resources, self.by_ray, self.counts, self.sources = resources, by_ray, counts, sources
        self.validated_by = validated_by
        self.tree = ProcessTree()
        self.ray: Any = None  # ``bench.scheduling.ray_tune.driver.RayExecutor``, once it is connected
        self.preflight: Preflight | None = None  # of a cluster's nodes
        self.server: ForkServer | None = None

    def __enter__(self) -> "Executor":
        self.enter_context(self.tree)
        return super().__enter__()

    @property
    def at_once(self) -> int:
        """Number of trials that run at the same time."""
        if not self.by_ray:
            return 1
        return sum(node.slots for node in self.ray.nodes) if self.ray else self.resources.slots_here()

    def absent(self, trials: Sequence[Trial]) -> dict[str, list[Missing]]:
        """Lists what the trials lack that cannot run here, or on no node of the cluster, by trial id."""
        if not trials:
            return {}
        if not self.resources.address:
            if problems := fetch(self.sources):
                raise ConfigError(*problems)
            return absent_of(trials)
        if self.preflight is None:
            ray = self._connect_to_ray(trials)
            self.preflight = ray.check_nodes(trials, _one_of_each_kind(trials), self.sources, self.validated_by)
        # points that a search proposes later differ in settings, not in weights or data
        absent = self.preflight.absent
        return {trial.trial_id: absent[trial.trial_id] for trial in trials if trial.trial_id in absent}

    def prepare(self, trials: Sequence[Trial], progress: Progress) -> list[str]:
        """Reads, checks and caches weights and data; returns notes about them for the user."""
        check_parallel(self.resources, trials)
        if self.preflight is not None:
            return self.preflight.notes
        self._start_server(trials)  # it imports meanwhile
        notes = prepare_weights(trials)
        return [*notes, *prepare_data(trials, progress, self.validated_by)]

    def in_order(self, trials: Sequence[Trial]) -> list[Trial]:
        """Sorts the trials by their start (``bench.scheduling.run_order``)."""
        return longest_first(trials, self.counts) if self.by_ray else seed_by_seed(trials)

    def run(self, queue: TrialQueue, interrupts: Interrupts) -> None:
        """Runs the queue's trials; leaves one record for each trial that no other driver runs."""
        self._start_server(queue.trials)
        if self.by_ray:
            self._connect_to_ray(queue.trials).run(queue, interrupts, self.server)
        else:
            serial.run_serially(
                queue, self.server, threads=self.resources.threads, gpus_per_trial=self.resources.gpus_per_trial
            )

    def _start_server(self, trials: Sequence[Trial]) -> None:
        """Starts the fork server, once. A cluster's nodes have theirs; trials on several GPUs are not forked."""
        if self.server is None and trials and not self.resources.address and self.resources.gpus_per_trial <= 1:
            self.server = self.enter_context(ForkServer(_one_of_each_kind(trials)))

    def _connect_to_ray(self, trials: Sequence[Trial]) -> Any:
        """Imports Ray and connects to it, once. The other code works without Ray, and does not wait for its import."""
        if self.ray is None:
            try:
                from bench.scheduling.ray_tune.driver import RayExecutor
            except ImportError as error:
                reason = f"Ray cannot be loaded: {error}"
                raise ConfigError(f"{reason}. Install it (pip install -e .), or add --executor serial") from None
            except RuntimeError as error:  # the user has no home directory
                reason = f"Ray cannot be loaded: {str(error).rstrip('.')}"
                raise ConfigError(f"{reason}. Set HOME to a folder, or add --executor serial") from None
            self.ray = self.enter_context(RayExecutor(self.resources, trials, self.tree))
        return self.ray


def _one_of_each_kind(trials: Sequence[Trial]) -> list[str]:
    """Selects one trial, as JSON, for each kind of model."""
    return list({_kind(trial.config.model): trial.config.model_dump_json() for trial in trials}.values())


def _kind(config: Config) -> tuple:
    """Identifies the modules that a model imports: they depend on its parts and on words among their settings."""
    kind: list[object] = [type(config)]
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            kind.append(_kind(value))
        elif isinstance(value, str):
            kind.append(value)
    return tuple(kind)
