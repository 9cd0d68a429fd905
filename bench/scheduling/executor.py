"""Where the trials of a sweep run: one after another or side by side on this machine, or on a Ray cluster's nodes."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import ModuleType

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.datasets.core.sources import Source, fetch
from bench.processes.client import ForkServer
from bench.scheduling import serial
from bench.scheduling.preflight import absent_of, prepare_data, prepare_weights
from bench.scheduling.resources import Resources, check_parallel
from bench.scheduling.run_order import longest_first
from bench.scheduling.trial_queue import Work
from bench.system.interrupt import Interrupts
from bench.system.process_tree import Family
from bench.system.progress import Progress
from models.core.registry import Config, Missing


class Executor(ExitStack):
    """Asks what the trials lack, prepares what they need, and runs them. A connection to Ray and the process that
    forks trials last until the exit."""

    def __init__(
        self,
        resources: Resources,
        by_ray: bool,
        counts: Mapping[str, Mapping[str, int]],
        sources: Sequence[Source] = (),
        validated_by: str | None = None,
    ) -> None:
        """counts: of parameters by trial id, which say what takes longest; sources: what is fetched where it is not;
        validated_by: who needs a validation split, as ``bench.scheduling.preflight.prepare_data`` says it.

        All methods raise ``ConfigError``.
        """
        super().__init__()
        self.resources, self.by_ray, self.counts, self.sources = resources, by_ray, counts, sources
        self.validated_by = validated_by
        self.family = Family()
        self.nodes: list = []
        self.ready = None  # what a cluster's nodes said
        self.server: ForkServer | None = None
        self.servers: list = []  # on a cluster's nodes

    def __enter__(self) -> "Executor":
        self.enter_context(self.family)
        return super().__enter__()

    @property
    def at_once(self) -> int:
        """How many trials run side by side."""
        if not self.by_ray:
            return 1
        return sum(node.slots for node in self.nodes) or self.resources.slots_here()

    def absent(self, trials: Sequence[Trial]) -> dict[str, list[Missing]]:
        """What keeps trials from running here, or on every node of the cluster, by trial id."""
        if not trials:
            return {}
        if not self.resources.address:
            if problems := fetch(self.sources):
                raise ConfigError(*problems)
            return absent_of(trials)
        if self.ready is None:
            ray = _ray()
            self.nodes = self.enter_context(ray.connected(self.resources, list(trials), self.family))
            self.servers = ray.start_servers(self.nodes, _kinds(trials))
            self.ready = ray.ask(self.nodes, list(trials), self.resources, self.sources, self.validated_by)
        # points that a search proposes later differ in settings, not in weights or data
        return {t.trial_id: self.ready.absent[t.trial_id] for t in trials if t.trial_id in self.ready.absent}

    def prepare(self, trials: Sequence[Trial], progress: Progress) -> list[str]:
        """Reads, checks and caches weights and data; returns what a user should know about them."""
        check_parallel(self.resources, {t.config.train.batch_size: ", ".join(t.point) for t in trials})
        if self.ready is not None:
            return self.ready.notes
        self._start_server(trials)  # it imports meanwhile
        notes = prepare_weights(trials)
        return [*notes, *prepare_data(trials, progress, self.validated_by)]

    def in_order(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials as they are to be started: side by side the longest first, so that none runs alone at the end."""
        return longest_first(trials, self.counts) if self.by_ray else list(trials)

    def run(self, work: Work, interrupts: Interrupts) -> None:
        """Runs what there is to run; leaves one record for each trial that was not another driver's."""
        resources = self.resources
        self._start_server(work.trials)
        if not self.by_ray:
            settings = {"threads": resources.threads, "gpus_per_trial": resources.gpus_per_trial}
            serial.run_serially(work, self.server, **settings)
            return
        ray = _ray()
        if not self.nodes:
            self.nodes = self.enter_context(ray.connected(resources, list(work.trials), self.family))
        ray.run_on_ray(work, interrupts, resources, self.nodes, self.server, self.family)

    def _start_server(self, trials: Sequence[Trial]) -> None:
        """Once. A cluster's nodes have theirs, and a trial on several GPUs has a process for each."""
        if self.server is None and trials and not self.resources.address and self.resources.gpus_per_trial <= 1:
            self.server = self.enter_context(ForkServer(_kinds(trials)))


def _kinds(trials: Sequence[Trial]) -> list[str]:
    """One of the trials, as JSON, for each kind of model."""
    return list({_kind(trial.config.model): trial.config.model_dump_json() for trial in trials}.values())


def _kind(config: Config) -> tuple:
    """What a model imports depends on its parts and on words among their settings, not on numbers."""
    values = (getattr(config, name) for name in type(config).model_fields)
    return type(config), *(_kind(v) if isinstance(v, Config) else v for v in values if isinstance(v, Config | str))


def _ray() -> ModuleType:
    """``bench.scheduling.ray_tune``: the rest works where Ray is not installed, and does not wait for it to load."""
    try:
        from bench.scheduling import ray_tune
    except ImportError as error:
        reason = f"Ray cannot be loaded: {error}"
        raise ConfigError(f"{reason}. Install it (pip install -e .), or add --executor serial") from None
    except RuntimeError as error:  # of a user without a home directory
        reason = str(error).rstrip(".")
        raise ConfigError(f"Ray cannot be loaded: {reason}. Set HOME to a folder, or add --executor serial") from None
    return ray_tune
