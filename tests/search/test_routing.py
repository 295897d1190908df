"""What the experts do: figures worked by hand, what the records keep, and that a mixed training balances them."""

import dataclasses
import math

import pytest
import torch

from hfir.blocks.moe import Routing
from hfir.config import HFIRConfig, MoEConfig
from hfir.losses import routing_supervision
from hfir.model import build_model
from search.evaluation.plan import ProxyPlan
from search.evaluation.proxy import ProxyTraining, train_rung, validate, validate_with_routing
from search.evaluation.routing import condition_from, expert_use
from search.tasks.dataset import embedded_task
from search.tasks.degradations import Denoise, Mixed
from search.types import BALANCED_ENTROPY, ExpertUse, Measurement, measurement_from_json, to_json

NAMES = ("texture", "denoise", "deblur", "artifact")


def config(num_experts=4, top_k=1, stages=("mid",), width=8, **changes):
    experts = MoEConfig(num_experts=num_experts, top_k=top_k, stages=stages)
    return HFIRConfig(
        upscale=1, width=width, encoder_blocks=(1, 1), decoder_blocks=(1, 0), **{"experts": experts, **changes}
    )


def plan(*rungs, **changes):
    fields = {"batch": 8, "patch_px": 48, "learning_rate": 0.004, "warmup_steps": 20, "loss": "charbonnier"}
    return ProxyPlan(rungs=rungs, data_seed=0, **{**fields, **changes})


def decided(chosen, num_experts=4):
    """A router that is sure of what it chose: a row for each window, an entry for each of the top k."""
    rows = torch.tensor(chosen)
    return Routing(1e3 * torch.eye(num_experts)[rows[:, 0]], rows, windows=len(rows), place="mid")


def use_of(chosen, labels=None, names=()):
    """The use of one mixture at `mid`, an entry of `chosen` for each photograph."""
    routings = [[decided(rows)] for rows in chosen]
    (use,) = expert_use(routings, labels or [None] * len(routings), names)
    return use


def test_each_photograph_counts_once_however_many_windows_it_has():
    # One photograph of 4 windows goes to 0; one of one window to 1: half each, and the entropy is ln 2 / ln 4.
    use = use_of([[[0], [0], [0], [0]], [[1]]])
    assert use.load == (0.5, 0.5, 0.0, 0.0)
    assert use.load_entropy == pytest.approx(0.5)
    assert use.dead == (2, 3)
    assert (use.stage, use.confidence, use.information_bits) == ("mid", pytest.approx(1.0), None)


def test_with_two_experts_for_each_photograph_both_choices_count():
    use = use_of([[[0, 1]], [[2, 3]]])
    assert use.load == (0.25,) * 4
    assert use.load_entropy == pytest.approx(1.0)
    assert use.dead == ()


def test_all_to_one_has_no_entropy():
    assert use_of([[[2]], [[2]]]).load_entropy == 0.0


def test_an_expert_is_dead_below_a_tenth_of_a_fair_share():
    shares = {"load_entropy": 0.5, "confidence": 1.0, "stage": "mid"}
    assert ExpertUse(load=(0.5, 0.449, 0.026, 0.025), **shares).dead == ()
    assert ExpertUse(load=(0.5, 0.451, 0.025, 0.024), **shares).dead == (3,)


@pytest.mark.parametrize(
    ("chosen", "bits"),
    [
        ([[[0]], [[1]], [[2]], [[3]]], 2.0),  # each degradation has its expert: log2 4
        ([[[0]], [[0]], [[1]], [[1]]], 1.0),  # two share one: H(expert) is 1 bit, nothing is left within
        ([[[0]], [[0]], [[0]], [[0]]], 0.0),
        ([[[0], [1]]] * 4, 0.0),  # each goes to both alike
    ],
)
def test_information_on_the_expert_by_hand(chosen, bits):
    use = use_of(chosen, labels=[0, 1, 2, 3], names=NAMES)
    assert use.information_bits == pytest.approx(bits, abs=1e-9)


def test_the_table_is_the_load_over_the_photographs_of_each_degradation():
    use = use_of([[[0]], [[1]], [[2]], [[2]]], labels=[0, 0, 1, 2], names=NAMES[:3])
    assert use.load_by_degradation == ((0.5, 0.5, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 1.0, 0.0))
    # H(expert) of (1/4, 1/4, 1/2) is 1.5 bits; within texture, half of the photographs, 1 bit.
    assert use.information_bits == pytest.approx(1.0)


def test_mixtures_are_named_by_their_stages():
    network = build_model(config(stages=("dec2", "enc2", "mid"))).eval()
    with torch.inference_mode():
        _, routings = network.forward_with_routing(torch.rand(1, 3, 16, 16))
    assert [use.stage for use in expert_use([routings], [None], ())] == ["enc2", "mid", "dec2"]
    assert expert_use([[], []], [None, None], ()) == ()


def test_networks_that_ask_are_told_the_degradation():
    labels = torch.tensor([2, 0])
    told = condition_from(dataclasses.replace(config(), experts=MoEConfig(condition_channels=4)), labels)
    assert told.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert condition_from(config(), labels) is None


def test_a_measurement_with_experts_reads_back_and_an_old_one_without_reads_too():
    use = use_of([[[0]], [[1]]], labels=[0, 1], names=NAMES[:2])
    fields = {"rung": 0, "step": 2, "psnr_db": 30.0, "ssim": 0.9, "psnr_per_image_db": (30.0,)}
    made = Measurement(**fields, elapsed_s=1.0, loss=0.1, experts=(use,))
    assert measurement_from_json(to_json(made)) == made
    old = {key: value for key, value in to_json(made).items() if key != "experts"}
    assert measurement_from_json(old).experts == ()


# -- supervision -------------------------------------------------------------------------------------


def rows(*probabilities):
    return Routing(
        logits=torch.tensor(probabilities).log(), chosen=torch.zeros(len(probabilities), 1, dtype=torch.int64)
    )


def test_supervision_is_the_cross_entropy_of_the_skill_by_hand():
    routing = rows([0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1])
    expected = -(math.log(0.4) + math.log(0.7)) / 2
    assert float(routing_supervision([routing], torch.tensor([3, 0]))) == pytest.approx(expected)
    assert float(routing_supervision([routing] * 2, torch.tensor([3, 0]))) == pytest.approx(2 * expected)
    assert routing_supervision([], torch.tensor([3, 0])) == 0.0


def test_experts_are_named_in_turn_and_those_of_one_name_share_its_skill():
    # Experts 1 and 5 both have skill 1: 0.2 + 0.3.
    routing = rows([0.1, 0.2, 0.1, 0.1, 0.1, 0.3, 0.1])
    assert float(routing_supervision([routing], torch.tensor([1]))) == pytest.approx(-math.log(0.5), rel=1e-5)


def test_a_skill_without_an_expert_is_left_out():
    routing = rows([0.25, 0.75], [0.5, 0.5])
    assert float(routing_supervision([routing], torch.tensor([1, 3]))) == pytest.approx(-math.log(0.75))
    assert float(routing_supervision([routing], torch.tensor([2, 3]))) == 0.0


def test_the_windows_of_an_image_share_its_label():
    routing = rows([0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6])
    expected = -(math.log(0.1) + math.log(0.2) + math.log(0.7) + math.log(0.6)) / 4
    assert float(routing_supervision([routing], torch.tensor([0, 1]))) == pytest.approx(expected)


def test_supervision_pushes_the_wanted_expert_up():
    logits = torch.zeros(2, 4, requires_grad=True)
    routing_supervision([Routing(logits=logits, chosen=torch.zeros(2, 1))], torch.tensor([1, 1])).backward()
    assert (logits.grad[:, 1] < 0).all()
    assert (logits.grad[:, [0, 2, 3]] > 0).all()


# -- in training -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed():
    return embedded_task(Mixed(), 3, seed=0, max_validation_px=64)


def test_experts_are_looked_at_after_the_last_rung_alone(mixed, tmp_path):
    short = plan(1, 2, batch=2, patch_px=16)
    job = {"seed": 0, "checkpoint": tmp_path / "c", "device": "cpu"}
    assert train_rung(config(), short, mixed, rung=0, **job).experts == ()
    last = train_rung(config(), short, mixed, rung=1, **job)
    (use,) = last.experts
    assert (use.stage, use.degradations, sum(use.load)) == ("mid", NAMES, pytest.approx(1.0))
    assert train_rung(config(), short, mixed, rung=1, **job) == last, "answered from the checkpoint"
    assert train_rung(config(experts=None), short, mixed, rung=1, **{**job, "checkpoint": tmp_path / "d"}).experts == ()


def test_looking_at_the_routers_changes_no_quality(mixed):
    model = ProxyTraining(config(top_k=2), plan(1), mixed, 0).deployed()
    shown = validate_with_routing(model, mixed)
    assert shown.qualities == validate(model, mixed)
    assert [[routing.chosen.shape for routing in made] for made in shown.routings] == [[(1, 2)]] * 16


def test_supervision_changes_a_training_only_where_there_are_labels(mixed):
    plain = embedded_task(Denoise(25), 3, seed=0, max_validation_px=64)
    losses = {
        (data is mixed, weight): ProxyTraining(
            config(), plan(3, batch=2, patch_px=16, routing_supervision=weight), data, 0
        ).run_to(3)
        for data in (mixed, plain)
        for weight in (0.0, 1.0)
    }
    assert losses[False, 0.0] == losses[False, 1.0]
    assert losses[True, 0.0] != losses[True, 1.0]


@pytest.mark.slow
def test_three_hundred_steps_on_the_mixed_task_leave_the_experts_balanced_and_none_dead():
    """The acceptance of load balancing, as `spaces/mixed.yaml` trains: over 16 validation images, in eval mode."""
    data = embedded_task(Mixed(), 3, seed=0, max_validation_px=192)
    training = ProxyTraining(config(), plan(300, routing_supervision=0.02), data, seed=0)
    training.run_to(300)
    labels = [pair.label for pair in data.validation]
    (use,) = expert_use(training.validate().routings, labels, data.labels)
    assert len(labels) == 16
    assert use.dead == ()
    assert use.load_entropy >= BALANCED_ENTROPY
    assert use.information_bits is not None
    assert use.information_bits > 1.0  # of 2: the degradation decides, not the picture
