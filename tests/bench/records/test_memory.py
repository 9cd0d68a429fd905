"""The memory measures, and peaks that contradict each other."""

import pytest

from bench.records.memory import MEASURES, NESTED, Memory

MIB = 2**20


@pytest.mark.parametrize(
    ("figures", "breach"),
    [
        ((900, 850, 400, 300), None),
        ((900, None, 400, 300), None),
        ((None, None, 400, 300), None),
        ((395, None, 400, 300), None),  # within what NVML resolves
        ((300, None, 400, 300), "nvml_device_bytes 300 MiB < torch_reserved_bytes 400 MiB"),
        ((500, 850, 400, 300), "nvml_device_bytes 500 MiB < nvml_process_bytes 850 MiB"),
    ],
)
def test_what_contradicts_itself_is_said(figures, breach):
    names = ("nvml_device_bytes", "nvml_process_bytes", "torch_reserved_bytes", "torch_allocated_bytes")
    memory = Memory(**{name: figure and figure * MIB for name, figure in zip(names, figures)})
    assert memory.breach == breach


def test_every_measure_is_a_field_of_a_phases_memory_and_so_is_its_baseline():
    names = [measure.name for measure in MEASURES]
    names += [measure.baseline for measure in MEASURES if measure.baseline]
    assert set(names) <= Memory.model_fields.keys() and set(NESTED) < set(names)
