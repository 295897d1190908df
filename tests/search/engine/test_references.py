"""A run beside other networks: tried first, trained at its end, kept and shown; and what goes wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hfir.config import HFIRConfig, LargeKernelConfig, MoEConfig
from hfir.fusion import fuse
from hfir.losses import PIXEL_LOSSES, routing_loss
from hfir.model import build_model
from search.evaluation.answers import Admission, Baseline
from search.evaluation.evaluator import task_data
from search.evaluation.jobs import ProxyEvaluator
from search.evaluation.plan import CandidateJob, ReferenceJob
from search.evaluation.proxy import BETAS, EMA_LIMIT, GRADIENT_CLIP, ProxyTraining, Training, build_copy, validate
from search.evaluation.references import cost_of
from search.evaluation.trainable import Plain
from search.executors import Executor, InlineExecutor, ProcessExecutor
from search.experiment import Experiment, load_experiment
from search.references.loading import build, deploy_form
from search.references.plan import ReferencePlan
from search.references.rep_stack import RepStack
from search.report import describe_standing, load_run, standings, write_tables
from search.tasks.patches import PatchSampler
from search.types import Cost, InputSize, SpecError, Study, TrialState

from .remembering import Remembering

NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, upscale, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(),
                                    nn.Conv2d(width, 3 * upscale**2, 3, padding=1), nn.PixelShuffle(upscale))
    def forward(self, x):
        return self.layers(x)

class Fails(Net):
    def forward(self, x):
        if self.training:
            raise MemoryError("too large")
        return super().forward(x)
"""
RUNGS = (2, 4, 6)
STACK = "{name: stack, network: rep_stack, args: {width: 4, depth: 1}}"


@pytest.fixture(scope="session")  # a process may come back to this file, and imports engine_nets once
def beside(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Experiment]:
    """Return a loader of the tiny experiment with references, from one folder with networks of the user's."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "engine_nets.py").write_text(NETS)

    def load(*references: str, trials: int = 2) -> Experiment:
        text = tiny_file.read_text().replace("trials: 6", f"trials: {trials}").replace("generation: 3", "generation: 2")
        path = folder / "beside.yaml"
        path.write_text(text + "references:\n" + "".join(f"  - {r}\n" for r in references))
        return load_experiment(path)

    return load


@pytest.fixture
def search_in(search_in: Callable[..., Study]) -> Callable[..., Study]:
    """Search with candidates that are not trained again: it is the references that matter here."""

    def search(experiment: Experiment, name: str, *workers: Executor, **options: object) -> Study:
        evaluator = Remembering(experiment.evaluation_plan())
        return search_in(experiment, name, *workers, **{"evaluator": evaluator, **options})

    return search


def job(tmp_path: Path, plan: ReferencePlan) -> ReferenceJob:
    return ReferenceJob(reference=plan, seed=5, checkpoint=str(tmp_path / "reference.pt"))


# -- training ----------------------------------------------------------------------------------------


def written_out(config: HFIRConfig, plan, data, seed: int, steps: int) -> list[float]:
    """The training of a candidate as it stood before the proxy took other networks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(config).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, betas=BETAS, weight_decay=0.0, fused=True)
    average = [p.detach().clone() for p in model.parameters()]
    patches = PatchSampler(data, plan.patch_px, plan.batch, plan.data_seed)
    for step in range(steps):
        batch = patches.batch(step)
        optimiser.param_groups[0]["lr"] = plan.learning_rate * min(1.0, (step + 1) / plan.warmup_steps)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.data_seed + step)
            restored, routings = model.forward_with_routing(batch.degraded)
        optimiser.zero_grad(set_to_none=True)
        (PIXEL_LOSSES[plan.loss](restored, batch.clean) + routing_loss(routings)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP, foreach=True)
        optimiser.step()
        decay = min(EMA_LIMIT, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, parameter in zip(average, model.parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)
    deployed = fuse(build_copy(model, average)).eval().to(memory_format=torch.channels_last)
    return [quality.psnr_db for quality in validate(deployed, data)]


def test_a_candidates_figures_are_bit_for_bit_what_they_were(tiny: Callable[..., Experiment]):
    plan = tiny().evaluation_plan()
    data = task_data(plan.task)
    experts = MoEConfig(num_experts=2, top_k=1, stages=("mid",))
    config = HFIRConfig(upscale=2, width=4, mixer=LargeKernelConfig(kernel_size=5, reparam=True), experts=experts)
    training = ProxyTraining(config, plan.proxy, data, seed=7)
    training.run_to(20)
    now = [quality.psnr_db for quality in training.validate().qualities]
    assert now == written_out(config, plan.proxy, data, seed=7, steps=20)


def test_the_reported_loss_is_the_mean_over_the_last_tenth_of_the_steps(tiny: Callable[..., Experiment]):
    plan = tiny().evaluation_plan()
    config = HFIRConfig(upscale=2, width=4, bottleneck_blocks=0, decoder_blocks=(0,))
    training, losses = ProxyTraining(config, plan.proxy, task_data(plan.task), seed=7), []
    reported = training.run_to(20, lambda step, loss, rate: losses.append(float(loss)))
    assert reported == pytest.approx((losses[18] + losses[19]) / 2)
    assert reported != pytest.approx(sum(losses) / 20)
    assert training.run_to(25, lambda step, loss, rate: losses.append(float(loss))) == pytest.approx(losses[24])


def test_any_module_trains_and_goes_on_from_its_checkpoint_as_if_unbroken(tiny, tmp_path: Path):
    evaluator = ProxyEvaluator(tiny().evaluation_plan())
    data = task_data(evaluator.plan.task)
    plan = ReferencePlan(name="stack", network="rep_stack", args={"width": 4, "depth": 1})
    asked = job(tmp_path, plan)
    shown = [
        evaluator.train_reference(ReferenceJob(reference=plan, seed=5, checkpoint=asked.checkpoint, rung=r))
        for r in range(3)
    ]
    assert [m.step for m in shown] == list(RUNGS)
    whole = Training(Plain(lambda: build(plan, in_channels=3, upscale=2), deploy_form), evaluator.plan.proxy, data, 5)
    whole.run_to(6)
    assert [q.psnr_db for q in whole.validate().qualities] == list(shown[-1].psnr_per_image_db)
    deployed = whole.deployed()
    assert isinstance(deployed, RepStack)
    assert not any(name.startswith("body.0.full") for name, _ in deployed.named_parameters()), "deployed is folded"


def test_the_cost_is_of_the_deploy_form_and_counted_at_the_files_sizes(tiny):
    plan = tiny().evaluation_plan()
    cost = cost_of(RepStack(3, 2, width=4, depth=0), plan.cost, channels=3)
    # Deployed: conv 3→4 and 4→12, 3×3, biases, and a PReLU of 4; at 64×64.
    assert cost.params_m * 1e6 == 3 * 9 * 4 + 4 + 4 * 9 * 12 + 12 + 4
    assert cost.macs_g * 1e9 == pytest.approx(64 * 64 * 9 * (3 * 4 + 4 * 12))
    assert cost.params_train_m > cost.params_m
    assert (cost.macs_at, cost.peak_mem_at) == ("64x64", "24x24")
    assert cost.latency is not None
    assert cost.latency.at == str(InputSize(width=24, height=24))


def test_what_has_nothing_to_learn_is_scored_after_no_step(tiny, tmp_path: Path):
    evaluator = ProxyEvaluator(tiny().evaluation_plan())
    shown = evaluator.train_reference(job(tmp_path, ReferencePlan(name="bicubic", network="bicubic")))
    assert (shown.step, shown.rung) == (0, 2)
    assert shown.psnr_db == pytest.approx(evaluator.look_at_data(None).psnr_db, abs=0.02)


# -- a run -------------------------------------------------------------------------------------------


def test_references_are_trained_through_all_rungs_and_are_no_trials(beside, search_in):
    experiment = beside("bicubic", STACK, "{name: ours, module: 'engine_nets:Net', args: {width: 2}}")
    study = search_in(experiment, "run")
    assert [r.name for r in study.references] == ["bicubic", "stack", "ours"]
    assert [[m.step for m in r.measurements] for r in study.references] == [[0], [2, 4, 6], [2, 4, 6]]
    assert all(r.value("latency_ms") for r in study.references)
    assert study.references[2].made["module"] == "engine_nets:Net"
    trained = [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.STOPPED)]
    assert len(trained) == experiment.search.trials, "they cost no trials"
    assert {s.is_done for s in standings(study)} == {True}
    write_tables(study)
    frame = load_run(study.folder).references
    assert list(frame["state"]) == ["REFERENCE"] * 3
    assert frame["trial"].isna().all()
    text = (study.folder / "trials.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in text[-3:]] == [["", n, "REFERENCE"] for n in ("bicubic", "stack", "ours")]


@pytest.mark.slow
def test_workers_build_references_of_the_users(beside, search_in, two_workers: ProcessExecutor):
    experiment = beside("{name: ours, module: 'engine_nets:Net', args: {width: 2}}")
    [two] = search_in(experiment, "two", two_workers).references
    [one] = search_in(experiment, "one").references
    assert [m.psnr_db for m in two.measurements] == [m.psnr_db for m in one.measurements] != []


def test_a_reference_that_is_done_is_not_repeated_and_a_new_one_is_added(beside, search_in, store_of, tmp_path: Path):
    before = search_in(beside(STACK), "run").references
    experiment = beside(STACK, "bicubic")

    class Watched(InlineExecutor):
        asked: list[str] = []  # noqa: RUF012

        def run(self, function, jobs):
            for outcome in super().run(function, jobs):
                if isinstance(outcome.job, ReferenceJob):
                    self.asked.append(outcome.job.reference.name)
                yield outcome

    after = search_in(experiment, "run", Watched()).references
    assert set(Watched.asked) == {"bicubic"}
    assert after[0] == before[0]
    assert [r.name for r in after] == ["stack", "bicubic"]
    assert [r.name for r in search_in(beside("bicubic"), "run").references] == ["bicubic"], "no longer named: forgotten"
    changed = search_in(beside(STACK.replace("depth: 1", "depth: 0")), "run").references
    assert changed[0].value("params_m") != before[0].value("params_m"), "made differently: begun anew"


def test_a_run_that_is_stopped_at_any_job_ends_with_the_same_references(beside, search_in, interrupted_after):
    experiment = beside(STACK, "{name: ours, module: 'engine_nets:Net'}")
    whole = search_in(experiment, "whole").references
    for jobs in (11, 14):
        name = f"broken-{jobs}"
        with pytest.raises(KeyboardInterrupt):
            search_in(experiment, name, interrupted_after(jobs))
        again = search_in(experiment, name).references
        assert [[m.psnr_db for m in r.measurements] for r in again] == [
            [m.psnr_db for m in r.measurements] for r in whole
        ]


class Elsewhere(Remembering):
    """Answers as another machine would."""

    def look_at_data(self, job: None) -> Baseline:
        return replace(super().look_at_data(job), host="elsewhere")

    def remeasure(self, job: CandidateJob) -> Admission:
        answer = super().remeasure(job)
        return replace(answer, cost=there(answer.cost), reason="")

    def measure_reference(self, job: ReferenceJob) -> Admission:
        answer = super().measure_reference(job)
        return replace(answer, cost=there(answer.cost))


def there(cost: Cost) -> Cost:
    return replace(cost, latency=cost.latency and replace(cost.latency, host="elsewhere"))


def test_a_run_that_moves_measures_its_references_anew_and_trains_none_again(beside, search_in):
    experiment = beside("bicubic", STACK)
    before = search_in(experiment, "run").references
    after = search_in(experiment, "run", evaluator=Elsewhere(experiment.evaluation_plan()), move=True).references
    assert {r.cost.latency.host for r in after} == {"elsewhere"}
    assert [r.measurements for r in after] == [r.measurements for r in before]


def test_one_that_fails_in_training_is_told_and_the_run_goes_on(beside, search_in):
    study = search_in(beside("{name: broken, module: 'engine_nets:Fails'}", STACK), "run")
    broken, stack = study.references
    assert broken.reason == "too large"
    assert "MemoryError" in broken.failure
    assert broken.value("latency_ms") is not None
    assert len(stack.measurements) == 3
    assert study.facts["finished"] == 2
    words = [describe_standing(study, s) for s in standings(study)]
    assert words[0] == "failed: too large"


def test_one_that_cannot_be_built_ends_the_run_before_anything_is_spent(beside, search_in, tmp_path: Path):
    experiment = beside(STACK, "{name: ours, module: 'engine_nets:Nett'}")
    with pytest.raises(SpecError) as fault:
        search_in(experiment, "run")
    line = Path(experiment.source).read_text().splitlines().index("  - {name: ours, module: 'engine_nets:Nett'}") + 1
    assert str(fault.value).startswith(f"{experiment.source}:{line}: ours: engine_nets has no Nett.")
    assert not (tmp_path / "run" / "checkpoints").exists()
