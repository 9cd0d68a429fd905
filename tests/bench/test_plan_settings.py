"""The planner with compiled steps, with types that a generation lacks, and without a question."""

from test_plan import GIB, SWEEP

from bench.config.trial import with_value
from bench.memory import sweep_plan
from bench.memory.card_generations import GENERATIONS
from bench.memory.predicted_peak import PredictedPeak, predict_peak, prediction_key
from bench.memory.step_memory import PARTS, StepMemory
from bench.memory.sweep_plan import PlanRow
from bench.plan import assumptions, main


def test_a_recorded_step_keeps_its_memory_while_the_last_batch_runs(tiny):
    modes = (False, "blocks", "step")
    configs = [with_value(tiny, {"device": "cuda", "train.compile": mode}) for mode in modes]
    plain, blocks, step = map(predict_peak, configs)
    batch = sum(plain.parts[part] for part in ("gradients", "activations", "temporaries"))
    assert blocks == plain and step.allocated == plain.allocated
    assert step.reserved == plain.reserved + batch and step.device == plain.device + batch
    keys = [prediction_key(config) for config in configs]
    assert keys[0] == keys[1] != keys[2]  # equal predictions are made once
    recorded = PlanRow(("a",), configs[2], step)
    assert "a second batch" in assumptions(GENERATIONS["ampere"], [recorded])
    assert "ompil" not in assumptions(GENERATIONS["ampere"], [PlanRow(("a",), tiny, plain)])


def test_a_plan_needs_no_question(monkeypatch, tmp_path):
    step = StepMemory(dict.fromkeys(PARTS, GIB), "x", GIB)
    monkeypatch.setattr(sweep_plan, "predict_peak", lambda config, generation: PredictedPeak(step))
    asked = SWEEP.replace("    seeds: [0, 1, 2]", "    seeds: [0, 1, 2]\n    ask: trend").replace(
        "[2, 64]", "[2, 8, 64]"
    )
    (tmp_path / "own.yaml").write_text(asked)
    command = [str(tmp_path / "own.yaml"), "--results", str(tmp_path), "model.adapter.rank=[2]"]
    assert main(command) == 0
    assert main([*command, "ask=best"]) == 0  # an override of the question is no error either


def test_a_type_without_tensor_cores_is_not_predicted_for_that_generation(monkeypatch, tmp_path, capsys):
    step = StepMemory(dict.fromkeys(PARTS, GIB), "x", GIB)
    monkeypatch.setattr(sweep_plan, "predict_peak", lambda config, generation: PredictedPeak(step))
    (tmp_path / "own.yaml").write_text(SWEEP)
    command = [str(tmp_path / "own.yaml"), "--results", str(tmp_path), "--generation", "turing"]
    assert main([*command, "train.precision=bfloat16"]) == 1
    page = (tmp_path / "mine-full" / "plan.md").read_text()
    assert "turing has compute capability 7.5, and tensor cores for bfloat16 exist from 8.0 on" in page
    assert "set train.precision=float16" in capsys.readouterr().out
    assert main([*command, "train.precision=float16"]) == 0
