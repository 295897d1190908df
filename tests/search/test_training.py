"""Full training on networks of a few hundred weights: stopping, going on, what is kept, and what is refused."""

from __future__ import annotations

import csv
import errno
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from torch import nn

from hfir import HFIRConfig, HydraFusionIR, LargeKernelConfig, MoEConfig, build_model, fuse, load_preset
from search.evaluation.evaluator import task_data
from search.store import hold
from search.training import GanPlan, TrainingPlan, load_recipe
from search.training.average import WeightAverage
from search.training.files import Validation, read_checkpoint, write_checkpoint
from search.training.plan import PlanError, differences, plan_from
from search.training.recipe import Recipe
from search.training.start import Start, start_from
from search.training.stopping import StopRequest, stop_requests
from search.training.trainer import FullTraining, Outcome, make_fabric, train
from search.types import EvaluationError, InputError, SpecError, StoreError

TINY = HFIRConfig(
    upscale=2,
    width=4,
    encoder_blocks=(1,),
    bottleneck_blocks=1,
    decoder_blocks=(0,),
    mixer=LargeKernelConfig(kernel_size=5),
    experts=MoEConfig(num_experts=2, top_k=1, stages=("mid",)),
)
SHORT = {"batch": 2, "patch_px": 16, "warmup_steps": 2, "validate_every": 1000, "checkpoint_every": 1000}
GAN = {"steps": 4, "discriminator_width": 2, "learning_rate": 1e-3}


@pytest.fixture
def gan_mode(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the network is told about GAN mode, while it heeds it."""
    told: list[bool] = []
    switch = HydraFusionIR.gan_mode

    def overheard(self: HydraFusionIR, on: bool) -> None:
        told.append(on)
        switch(self, on)

    monkeypatch.setattr(HydraFusionIR, "gan_mode", overheard)
    return told


Begin = Callable[..., Start]
Run = Callable[..., Outcome]


@pytest.fixture
def begin(task: dict) -> Begin:
    """Make a start whose network draws noise in training, as routers and refiners may."""

    def make(
        config: HFIRConfig = TINY,
        seed: int = 0,
        noise: float = 0.01,
        stirred: float = 0.0,
        hook: Callable[[nn.Module], None] | None = None,
    ) -> Start:
        def build(_: object, __: int) -> HydraFusionIR:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = build_model(config)
                with torch.no_grad():
                    for parameter in model.head.parameters():
                        parameter.add_(torch.randn_like(parameter), alpha=stirred)

            def disturb(module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
                if not module.training:
                    return inputs
                if hook is not None:
                    hook(module)
                return (inputs[0] + noise * torch.randn_like(inputs[0]),)

            model.stem.register_forward_pre_hook(disturb)
            return model

        return Start(name="tiny", task=task, origin={"name": "tiny"}, build=build)

    return make


@pytest.fixture
def run(begin: Begin, task: dict) -> Run:
    """Train in a folder with a plan of few steps; `stop_after` so many steps as a signal would."""

    def go(folder: Path, *, start: Start | None = None, stop_after: int | None = None, **changes: object) -> Outcome:
        plan = plan_from({"steps": 6, **SHORT, **changes})
        recipe = Recipe(plan, load_recipe(None, [], task).task)
        fabric = make_fabric(plan.precision, accelerator="cpu")
        if stop_after is None:
            return train(recipe, start or begin(), folder, fabric)
        with hold(folder):
            return FullTraining(recipe, start or begin(), folder, fabric).run(StopAfter(stop_after), None)

    return go


def test_a_training_names_what_it_leaves_out_in_its_log_and_its_card(
    begin: Begin, task: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(task["data"]["train"], photos)
    (photos / "broken.png").write_text("no picture")
    (photos / "empty.jpg").touch()
    Image.fromarray(np.zeros((64, 64), dtype=np.float32)).save(photos / "float.tif")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (34, 34, 3), dtype=np.uint8)).save(photos / "small.png")
    own = {**task, "data": {**task["data"], "train": str(photos)}}
    recipe = Recipe(plan_from({"steps": 1, **SHORT, "patch_px": 20}), load_recipe(None, [], own).task)
    with caplog.at_level("INFO"):
        train(recipe, begin(), tmp_path / "out", make_fabric("32-true", accelerator="cpu"))
    card = YAML(typ="safe").load((tmp_path / "out/best/preset.yaml").read_text("utf-8"))
    for words in (
        "broken.png: cannot be read as a picture",
        "empty.jpg: the file is empty",
        "float.tif: its levels are 32-bit numbers",
        "small.png: never trained on, its network input of 17 x 17 px is smaller than a patch of 20 px",
    ):
        assert any(words in line for line in card["data_notes"]), words
        assert any(f"data: {note}" in caplog.text for note in card["data_notes"] if words in note), words


def test_a_folder_that_cannot_be_read_is_one_error(
    begin: Begin, task: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    own = {**task, "data": {**task["data"], "train": str(tmp_path / "closed")}}
    recipe = Recipe(plan_from({"steps": 1, **SHORT}), load_recipe(None, [], own).task)
    for name, real in (("scandir", os.scandir), ("listdir", os.listdir)):

        def refusing(path: Path, listing=real):
            if Path(path).name == "closed":
                raise PermissionError(errno.EACCES, "Permission denied")
            return listing(path)

        monkeypatch.setattr(os, name, refusing)  # the tests may run as root, whom nothing is closed to
    with pytest.raises(InputError, match=r"closed: the folder cannot be read \(Permission denied\)"):
        train(recipe, begin(), tmp_path / "out", make_fabric("32-true", accelerator="cpu"))


class StopAfter(StopRequest):
    """A signal that comes after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @property
    def asked(self) -> bool:
        self.left -= 1
        return self.left <= 0


def saved(folder: Path) -> dict:
    state = read_checkpoint(folder, torch.device("cpu"))
    assert state is not None
    return state


def assert_same(one: object, other: object, where: str = "") -> None:
    """Compare what a checkpoint holds to the last bit; times aside."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            if key not in ("elapsed_s", "images_per_s", "seconds"):
                assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


# Stopped and gone on with -------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [(1,), (3, 2), (5,)])
def test_a_stopped_training_ends_where_the_unbroken_one_does(tmp_path: Path, run: Run, stops: tuple[int, ...]):
    run(tmp_path / "unbroken")
    for steps in stops:
        assert run(tmp_path / "stopped", stop_after=steps).interrupted
    torch.rand(3)  # whatever else draws random numbers between two sessions
    assert run(tmp_path / "stopped").finished
    assert_same(saved(tmp_path / "unbroken"), saved(tmp_path / "stopped"))


@pytest.mark.parametrize("stops", [(2,), (3,), (4,), (5, 1)])
def test_so_does_one_with_a_gan_stage(tmp_path: Path, run: Run, gan_mode: list[bool], stops: tuple[int, ...]):
    changes = {"steps": 3, "gan": GAN}
    run(tmp_path / "unbroken", **changes)
    assert gan_mode == [True]
    for steps in stops:
        run(tmp_path / "stopped", stop_after=steps, **changes)
    assert run(tmp_path / "stopped", **changes).finished
    assert_same(saved(tmp_path / "unbroken"), saved(tmp_path / "stopped"))
    assert saved(tmp_path / "stopped")["stage"]["name"] == "gan"


def test_the_weights_depend_on_the_seed_and_leave_the_caller_s_generator_alone(tmp_path: Path, run: Run):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(tmp_path / "a")
    assert torch.equal(before, torch.get_rng_state())
    run(tmp_path / "b", seed=1)
    a, b = (saved(tmp_path / name)["model"]["stem.weight"] for name in "ab")
    assert not torch.equal(a, b)


def test_a_finished_training_is_left_as_it_is(tmp_path: Path, run: Run):
    first = run(tmp_path)
    written = (tmp_path / "last.ckpt").stat().st_mtime_ns
    again = run(tmp_path)
    assert again.finished
    assert again.best == first.best
    assert (tmp_path / "last.ckpt").stat().st_mtime_ns == written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_under_way_and_keeps_it(tmp_path: Path, run: Run, begin: Begin, number: int):
    steps = iter(range(100))

    def at_the_third_step(_: nn.Module) -> None:
        if next(steps) == 2:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    outcome = run(tmp_path, start=begin(hook=at_the_third_step))
    assert outcome.interrupted
    assert not outcome.finished
    assert saved(tmp_path)["step"] == 3
    assert signal.getsignal(number) is handler


def test_the_second_signal_does_not_wait():
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_time_that_is_up_pauses_with_a_validation(tmp_path: Path, begin: Begin, task: dict):
    recipe = Recipe(TrainingPlan(steps=6, batch=2, patch_px=16), load_recipe(None, [], task).task)
    outcome = train(recipe, begin(), tmp_path, make_fabric("32-true", accelerator="cpu"), deadline=0.0)
    assert (outcome.steps, outcome.finished, outcome.interrupted) == (1, False, False)
    assert [row["step"] for row in saved(tmp_path)["history"]] == [0, 1]


# What is kept -------------------------------------------------------------------------------------


def test_training_improves_on_its_start_and_says_by_how_much(tmp_path: Path, run: Run, begin: Begin):
    outcome = run(tmp_path, start=begin(noise=0.0, stirred=0.02), steps=30, validate_every=10)
    assert outcome.best.psnr_db > outcome.before.psnr_db + 1
    card = YAML(typ="safe").load(tmp_path / "best" / "preset.yaml")
    assert card["measured"]["psnr_db"] == round(outcome.best.psnr_db, 4)
    assert card["measured"]["training_steps"] == outcome.best.step
    assert card["measured"]["macs_g"] > 0
    assert [row["step"] for row in card["training"]["history"]][:1] == [0]
    assert card["training"]["recipe"]["learning_rate"] == 0.002
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["0", "10", "20", "30"]
    assert rows[0]["loss"] == ""
    assert all(float(row["images_per_s"]) > 0 and math.isfinite(float(row["loss"])) for row in rows[1:])
    assert not list(tmp_path.rglob("*.part"))


def test_a_training_that_goes_wrong_leaves_the_start_as_the_best(tmp_path: Path, run: Run, begin: Begin):
    outcome = run(tmp_path, learning_rate=1.0, final_rate=1.0, warmup_steps=0, validate_every=2)
    assert outcome.last.psnr_db < outcome.before.psnr_db
    assert outcome.best == outcome.before
    untouched = fuse(begin().build(None, 0))  # pyright: ignore[reportArgumentType]
    assert_same(dict(load_preset(tmp_path / "best").state_dict()), dict(untouched.state_dict()))


def test_the_gan_stage_keeps_its_last_weights_beside_the_best(tmp_path: Path, run: Run):
    outcome = run(tmp_path, steps=2, gan=GAN)
    card = YAML(typ="safe").load(tmp_path / "gan" / "preset.yaml")
    assert outcome.last.stage == "gan"
    assert card["measured"]["training_steps"] == 6
    assert load_preset(tmp_path / "gan").config.fused


@pytest.mark.parametrize("loss", ["vanilla", "hinge", "least_squares"])
def test_both_players_move_in_the_gan_stage(tmp_path: Path, run: Run, loss: str):
    run(tmp_path, steps=2, gan={**GAN, "loss": loss}, stop_after=3)
    first = saved(tmp_path)
    run(tmp_path, steps=2, gan={**GAN, "loss": loss})
    last = saved(tmp_path)
    assert not torch.equal(first["model"]["stem.weight"], last["model"]["stem.weight"])
    assert not torch.equal(first["stage"]["judge"]["stem.weight"], last["stage"]["judge"]["stem.weight"])


def test_features_of_a_backbone_count_in_the_gan_stage(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "backbone_for_training.py").write_text("from torch import nn\nmake = lambda: nn.Conv2d(3, 4, 3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save(nn.Conv2d(3, 4, 3).state_dict(), tmp_path / "backbone.pth")
    perceptual = {"backbone": "backbone_for_training:make", "weights": str(tmp_path / "backbone.pth")}
    with pytest.raises(InputError, match="no layer 'conv1'"):
        run(tmp_path / "a", steps=1, gan={**GAN, "perceptual": {**perceptual, "layers": {"conv1": 1.0}}})
    for weight, name in ((0.0, "without"), (1.0, "with")):
        section = {**perceptual, "layers": {"": 1.0}, "weight": weight}
        run(tmp_path / name, steps=1, gan={**GAN, "perceptual": section})
    one, other = (saved(tmp_path / name)["model"]["stem.weight"] for name in ("with", "without"))
    assert not torch.equal(one, other)


def test_bf16_stays_finite_and_is_validated_in_fp32(tmp_path: Path, run: Run):
    outcome = run(tmp_path, precision="bf16-mixed", ssim_weight=0.5, steps=3, gan=GAN)
    assert all(v.isfinite().all() for v in saved(tmp_path)["model"].values())
    assert saved(tmp_path)["model"]["stem.weight"].dtype == torch.float32
    assert math.isfinite(outcome.last.psnr_db)


def test_bf16_reaches_the_network(tmp_path: Path, run: Run):
    for precision in ("32-true", "bf16-mixed"):
        run(tmp_path / precision, precision=precision, steps=2)
    one, other = (saved(tmp_path / p)["model"]["stem.weight"] for p in ("32-true", "bf16-mixed"))
    assert not torch.equal(one, other)
    assert torch.allclose(one, other, atol=0.01)


def test_a_divergence_is_told_and_the_checkpoint_is_from_before(tmp_path: Path, run: Run, begin: Begin):
    run(tmp_path, stop_after=2)

    def break_it(module: nn.Module) -> None:
        with torch.no_grad():
            module.bias.fill_(math.nan)

    with pytest.raises(EvaluationError, match="diverged before step 6"):
        run(tmp_path, start=begin(hook=break_it))
    assert saved(tmp_path)["step"] == 2
    assert all(v.isfinite().all() for v in saved(tmp_path)["model"].values())


# The average --------------------------------------------------------------------------------------


def test_the_average_warms_up_and_includes_buffers():
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, limit=0.15)
    with torch.no_grad():
        for value in (model.weight, model.running_mean):
            value.fill_(3.0)
        model.num_batches_tracked.fill_(7)
    average.update(model)  # decay 1/10: weight 0.1 * 1 + 0.9 * 3, mean 0.1 * 0 + 0.9 * 3
    assert average.weights["weight"].item() == pytest.approx(2.8)
    assert average.weights["running_mean"].item() == pytest.approx(2.7)
    assert average.weights["num_batches_tracked"].item() == 7
    average.update(model)  # decay min(0.15, 2/11)
    assert average.weights["weight"].item() == pytest.approx(0.15 * 2.8 + 0.85 * 3)
    assert model.weight.item() == 3.0


# What is refused ----------------------------------------------------------------------------------


def test_another_recipe_task_or_start_is_refused_with_the_difference(tmp_path: Path, run: Run, begin: Begin):
    run(tmp_path, stop_after=2)
    with pytest.raises(InputError, match=r"recipe\.batch: 2 -> 4; recipe\.steps: 6 -> 8\."):
        run(tmp_path, steps=8, batch=4)
    with pytest.raises(InputError, match=r"recipe\.gan: none -> \{"):
        run(tmp_path, gan=GAN)
    with pytest.raises(InputError, match=r"start\.weights"):
        run(tmp_path, start=begin(seed=1))
    assert run(tmp_path).finished


def test_a_folder_in_use_is_refused(tmp_path: Path, run: Run):
    with hold(tmp_path), pytest.raises(StoreError, match="another hfir-search"):
        run(tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path: Path, run: Run):
    (tmp_path / "last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(StoreError, match=r"last\.ckpt: the checkpoint cannot be read"):
        run(tmp_path)


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path: Path, begin: Begin, task: dict):
    recipe = Recipe(TrainingPlan(batch=3), load_recipe(None, [], task).task)
    with pytest.raises(InputError, match="batch: 3 cannot be shared by 2 devices"):
        FullTraining(recipe, begin(), tmp_path, make_fabric("32-true", accelerator="cpu", devices=2))


def test_several_devices_are_not_compiled_for(tmp_path: Path, begin: Begin, task: dict):
    recipe = Recipe(TrainingPlan(batch=4), load_recipe(None, [], task).task)
    two = make_fabric("32-true", accelerator="cpu", devices=2)
    with pytest.raises(InputError, match=r"--compile: 2 devices .*\n.*--devices 1, or with --no-compile"):
        FullTraining(recipe, begin(), tmp_path, two, compiled=True)


@pytest.mark.parametrize("options", [{"accelerator": "abacus"}, {"accelerator": "cuda", "devices": 64}])
def test_devices_that_are_not_there_are_refused(options: dict):
    with pytest.raises(InputError, match="--accelerator"):
        make_fabric("32-true", **options)


# Starts -------------------------------------------------------------------------------------------


@pytest.fixture
def preset(tmp_path: Path, task: dict, write_preset: Callable[..., Path]) -> Path:
    """A preset folder as a run writes it."""
    return write_preset(tmp_path / "preset", TINY, task)


def test_a_preset_is_trained_in_deploy_form_and_keeps_its_measured_costs(tmp_path: Path, run: Run, preset: Path):
    outcome = run(tmp_path / "out", start=start_from(str(preset)), steps=1)
    assert_same(saved(tmp_path / "out")["model"].keys(), load_preset(preset).state_dict().keys())
    card = YAML(typ="safe").load(outcome.folder / "best" / "preset.yaml")
    assert card["name"] == "small"
    assert (card["measured"]["latency_ms"], card["measured"]["macs_g"]) == (7.0, 0.5)
    assert card["measured"]["psnr_db"] != 30.0
    assert card["conditions"]["form"] == "deploy"
    assert card["provenance"]["start"] == {"preset": str(preset), "run": "r", "trial": 3}
    assert start_from(str(outcome.folder / "best")).name == "small"


def with_record(preset: Path, record: dict) -> Path:
    card = YAML(typ="safe").load(preset / "preset.yaml")
    YAML().dump({**card, "photographs": record}, preset / "preset.yaml")
    return preset


def test_a_card_names_all_photographs_that_the_weights_ever_saw(tmp_path: Path, run: Run, preset: Path):
    with_record(preset, {"train": {"ab" * 8: "earlier.png"}, "validation": {"cd" * 8: "chosen.png"}, "complete": True})
    outcome = run(tmp_path / "out", start=start_from(str(preset)), steps=1)
    seen = start_from(str(outcome.folder / "best")).seen
    assert seen.complete
    assert {"earlier.png"} < set(seen.train.values())
    assert {"chosen.png"} < set(seen.validation.values())
    assert not set(seen.train) & set(seen.validation)


def test_a_start_without_a_record_leaves_an_incomplete_one(tmp_path: Path, run: Run, preset: Path):
    outcome = run(tmp_path / "out", start=start_from(str(preset)), steps=1)
    assert not start_from(str(outcome.folder / "best")).seen.complete


def test_what_the_start_was_trained_on_may_not_be_validated_on(tmp_path: Path, run: Run, preset: Path, task: dict):
    data = task_data(load_recipe(None, [], task).task)
    record = {"train": {data.validation[0].digest: "known.png"}, "validation": {}, "complete": True}
    with pytest.raises(InputError, match=r"are among those that small was trained on:\n  .* = known\.png"):
        run(tmp_path / "out", start=start_from(str(with_record(preset, record))), steps=1)


def test_a_name_is_trained_from_scratch_at_the_task_s_scale():
    start = start_from("efficient")
    task = load_recipe(None, ["task.upscale=3", "task.channels=1"], start.task).task
    model = start.build(task, 4)
    assert (model.config.upscale, model.config.in_channels, model.config.fused) == (3, 1, False)
    assert torch.equal(model.stem.weight, start.build(task, 4).stem.weight)


def test_a_start_that_is_none_is_refused(tmp_path: Path, preset: Path):
    with pytest.raises(InputError, match="no preset folder"):
        start_from(str(tmp_path))
    (preset / "preset.yaml").write_text("name: x\n")
    with pytest.raises(InputError, match="task, measured, conditions not there"):
        start_from(str(preset))


def test_a_task_that_the_weights_do_not_fit_is_refused(preset: Path):
    start = start_from(str(preset))
    with pytest.raises(InputError, match="enlarges 2 times and takes 3 channels, the task asks for 1 times"):
        start.build(load_recipe(None, ["task.kind=denoise"], start.task).task, 0)


# The recipe ---------------------------------------------------------------------------------------


def test_a_recipe_is_a_file_with_assignments_on_top(tmp_path: Path, task: dict):
    file = tmp_path / "recipe.yaml"
    file.write_text("steps: 10\nbatch: 4\ngan: {loss: hinge}\ntask: {data: photos}\n")
    plan, loaded = load_recipe(file, ["steps=20", "gan.steps=5", "learning_rate=1"], task)
    assert (plan.steps, plan.batch, plan.learning_rate) == (20, 4, 1.0)
    assert plan.gan == GanPlan(loss="hinge", steps=5)
    assert plan.total_steps == 25
    assert dict(loaded.folders) == {"folder": str((tmp_path / "photos").resolve())}
    assert plan_from(plan.to_dict()) == plan


def test_folders_on_the_command_line_stand_relative_to_the_current_one(tmp_path: Path, task: dict):
    file = tmp_path / "recipe.yaml"
    file.write_text("steps: 10\n")
    assert dict(load_recipe(file, ["task.data=photos"], task).task.folders) == {"folder": str(Path.cwd() / "photos")}


def test_another_kind_of_task_keeps_data_and_channels_only(task: dict):
    loaded = load_recipe(None, ["task.kind=denoise", "task.sigma=15"], task).task
    assert (loaded.kind, loaded.options, loaded.channels) == ("denoise", (("sigma", 15.0),), 3)
    assert dict(loaded.folders) == task["data"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps: 5\nbatch: 0\n", r"recipe\.yaml:2: batch: 0 is not possible\.\n.*1\.\.4096"),
        ("steps: 5\n\ngan:\n  loss: hinges\n", r"recipe\.yaml:4: gan\.loss: 'hinges'.*\n.*vanilla, hinge"),
        ("stepz: 5\n", r"recipe\.yaml:1: stepz: unknown key\.\n.*Did you mean steps"),
        ("gan: 3\n", r"recipe\.yaml:1: gan: 3 is not possible"),
        ("steps: 5\nlearning_rate: .nan\n", r"recipe\.yaml:2: learning_rate: nan"),
        ("steps: true\n", r"recipe\.yaml:1: steps: True"),
        ("final_rate: 0.5\n", r"recipe\.yaml:1: final_rate: 0\.5 is above learning_rate"),
        ("gan:\n  perceptual: {weights: w}\n", r"recipe\.yaml:2: gan\.perceptual\.backbone: is missing"),
        ("task:\n  kind: sharpen\n", r"recipe\.yaml:2: task\.kind"),
        ("task: 3\n", r"recipe\.yaml:1: task: has no keys"),
        ("- steps\n", r"recipe\.yaml:1: the file holds a list where the keys of a recipe"),
    ],
)
def test_a_fault_is_shown_with_its_line_and_rule(tmp_path: Path, task: dict, text: str, says: str):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(SpecError, match=says):
        load_recipe(tmp_path / "recipe.yaml", [], task)


def test_the_rate_warms_up_and_falls_along_a_cosine():
    plan = TrainingPlan(steps=12, warmup_steps=2, learning_rate=0.1, final_rate=0.02, gan=GanPlan(learning_rate=0.5))
    assert [plan.rate(step) for step in (0, 1, 2)] == pytest.approx([0.05, 0.1, 0.1])
    assert plan.rate(11) == pytest.approx(0.02)
    assert plan.rate(5) == pytest.approx(0.02 + 0.08 * (1 + math.cos(math.pi / 3)) / 2)  # a third of the way: 0.08
    assert plan.rate(12) == 0.5
    assert TrainingPlan(steps=2).rate(0) == 0.002  # a warm-up takes half of a short training at most


def test_plans_check_their_rules_wherever_they_are_made():
    with pytest.raises(PlanError, match="patch_px: 8 is not possible"):
        TrainingPlan(patch_px=8)
    with pytest.raises(PlanError, match=r"steps: 0 is not possible\.\n.*GAN stage"):
        GanPlan(steps=0)


def test_the_documented_recipe_is_the_default_one(tmp_path: Path, task: dict):
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (tmp_path / "recipe.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    plan = load_recipe(tmp_path / "recipe.yaml", [], task).plan
    assert plan.gan is not None
    assert plan.gan.perceptual is not None
    assert replace(plan.gan, perceptual=None) == GanPlan()
    assert replace(plan, gan=None) == TrainingPlan()


def test_differences_are_named_as_a_user_would():
    old = {"a": 1, "gan": {"steps": 2, "loss": "hinge"}, "same": [1]}
    new = {"a": 1, "gan": {"steps": 3, "loss": "hinge"}, "same": [1], "more": None, "text": "x"}
    assert differences(old, new) == ["gan.steps: 2 -> 3", 'text: none -> "x"']


def test_a_row_of_the_history_can_be_read_back():
    row = Validation(
        step=1, stage="psnr", psnr_db=30.0, ssim=0.9, loss=None, learning_rate=0.1, images_per_s=None, elapsed_s=0.0
    )
    assert Validation(**{name: getattr(row, name) for name in Validation.__slots__}) == row


# Which photographs a training is of ---------------------------------------------------------------


@pytest.fixture
def own_photographs(task: dict, tmp_path: Path) -> dict:
    """A task on copies of the photographs, to change."""
    folders = {name: str(shutil.copytree(folder, tmp_path / name)) for name, folder in task["data"].items()}
    return {**task, "data": folders}


def go_on(folder: Path, start: Start, task: dict, **changes: object) -> Outcome:
    task_data.cache_clear()  # as in a new process
    plan = plan_from({"steps": 2, **SHORT, **changes})
    return train(
        Recipe(plan, load_recipe(None, [], task).task), start, folder, make_fabric("32-true", accelerator="cpu")
    )


def test_a_training_is_not_resumed_on_other_photographs(tmp_path: Path, begin: Begin, own_photographs: dict):
    out = tmp_path / "out"
    first = go_on(out, begin(), own_photographs)
    trained = Path(own_photographs["data"]["train"])
    shutil.copyfile(trained / "100.png", tmp_path / "kept.png")
    (trained / "100.png").rename(Path(own_photographs["data"]["validation"]) / "100.png")
    with pytest.raises(InputError, match=r"100\.png: used for validation now, not before\n.*\n?.*Restore the"):
        go_on(out, begin(), own_photographs)
    (Path(own_photographs["data"]["validation"]) / "100.png").unlink()
    with pytest.raises(InputError, match=r"100\.png \(training\): removed") as refused:
        go_on(out, begin(), own_photographs)
    assert "best/ of this one can be started from" in str(refused.value)
    assert {"0.png", "100.png"} == set(start_from(str(first.folder / "best")).seen.train.values())
    shutil.copyfile(tmp_path / "kept.png", trained / "100.png")
    assert go_on(out, begin(), own_photographs).finished


def test_equal_photographs_in_another_folder_are_the_same_training(
    tmp_path: Path, begin: Begin, task: dict, own_photographs: dict
):
    go_on(tmp_path / "out", begin(), task)
    assert go_on(tmp_path / "out", begin(), own_photographs).finished


def test_a_checkpoint_of_an_earlier_version_is_compared_with_what_its_card_records(
    tmp_path: Path, begin: Begin, own_photographs: dict
):
    out = tmp_path / "out"
    go_on(out, begin(), own_photographs)
    state = {key: value for key, value in saved(out).items() if key not in ("photographs", "schema")}
    write_checkpoint(out, state)
    assert go_on(out, begin(), own_photographs).finished
    (Path(own_photographs["data"]["train"]) / "0.png").unlink()
    with pytest.raises(InputError, match=r"0\.png \(training\): removed"):
        go_on(out, begin(), own_photographs)
