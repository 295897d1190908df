"""The deploy form computes what the training form computes."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from hfir import DenseConfig, HFIRConfig, LargeKernelConfig, fuse
from hfir.blocks.dense import DenseBlock, DenseConv
from hfir.blocks.folding import Foldable
from hfir.blocks.large_kernel import RepLargeKernel

CONFIGURATIONS = 100
REP = LargeKernelConfig(kernel_size=9, reparam=True)


def folded_modules(model: nn.Module) -> int:
    return sum(isinstance(module, Foldable) for module in model.modules())


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("number", range(CONFIGURATIONS))
def test_fused_network_gives_the_same_image(drawn, built, image, number: int):
    model = built(drawn(number), number, stirred=0.05)
    fused = fuse(model)
    x = image(1, 3, 16 + number % 13, 16 + 3 * number % 17, seed=number)
    with torch.no_grad():
        assert apart(model(x), fused(x)) < 1e-4
    assert folded_modules(fused) == 0
    assert fused.config == dataclasses.replace(model.config, fused=True)


def test_enough_of_these_networks_have_something_to_fold(drawn):
    mixers = [drawn(number).mixer for number in range(CONFIGURATIONS)]
    assert sum(isinstance(mixer, LargeKernelConfig) and mixer.reparam for mixer in mixers) >= 10
    assert sum(isinstance(mixer, DenseConfig) for mixer in mixers) >= 10


@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9, 11, 13])
def test_every_kernel_folds(built, image, kernel_size: int):
    config = HFIRConfig(width=4, mixer=LargeKernelConfig(kernel_size=kernel_size))
    model = built(config, kernel_size, stirred=0.1)
    x = image(2, 3, 15, 18)
    with torch.no_grad():
        model.head.conv.weight.mul_(4)  # so that what happens before the head shows
        expected = model(x)
        assert apart(expected, fuse(model)(x)) < 1e-4
        for module in model.modules():  # and the test would notice a branch that is left out
            if isinstance(module, RepLargeKernel):
                module.point.zero_()
        assert apart(expected, fuse(model)(x)) > 1e-3


@pytest.mark.parametrize("width", [4, 16, 40])
def test_a_dense_kernel_folds_with_its_gain_and_the_identity(built, image, width: int):
    model = built(HFIRConfig(width=width, mixer=DenseConfig()), width, stirred=0.05)
    x = image(2, 3, 15, 18)
    with torch.no_grad():
        model.head.conv.weight.mul_(4)
        expected, fused = model(x), fuse(model)
    kinds = [type(block.conv) for block in fused.modules() if isinstance(block, DenseBlock)]
    assert set(kinds) == {nn.Conv2d}
    with torch.no_grad():
        assert apart(expected, fused(x)) < 1e-4
        for block in fused.modules():
            if isinstance(block, DenseBlock):  # and the test would notice an identity that is left out
                block.conv.weight[:, :, 1, 1].sub_(torch.eye(width))
        assert apart(expected, fused(x)) > 1e-3


@pytest.mark.parametrize("channels", [8, 16, 96])
def test_a_dense_kernel_starts_near_the_identity(image, channels: int):
    torch.manual_seed(channels)
    x = image(1, channels, 24, 24) - 0.5
    with torch.no_grad():
        changed = DenseConv(channels)(x) - x
    assert 0.02 < changed.std() / x.std() < 0.3


def test_one_step_changes_what_a_dense_kernel_gives_alike_at_any_width(image):
    def step(channels: int) -> float:
        torch.manual_seed(channels)
        conv, x = DenseConv(channels), image(1, channels, 16, 16) - 0.5
        before = conv(x)
        optimiser = torch.optim.Adam([conv.weight], lr=1e-3)
        before.square().mean().backward()
        optimiser.step()
        return float((conv(x) - before).detach().std())

    assert step(128) < 1.5 * step(16)  # without the gain it is five times as much


def test_fusing_twice_changes_nothing(built, image, everything):
    once = fuse(built(everything, stirred=0.05))
    twice = fuse(once)
    assert twice is not once
    assert twice.config == once.config
    state = once.state_dict()
    assert twice.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in twice.state_dict().items())
    x = image(1, 3, 20, 20)
    with torch.no_grad():
        assert torch.equal(once(x), twice(x))


def test_fusing_leaves_the_input_as_it_was(built, everything):
    model = built(everything, stirred=0.05)
    before = copy.deepcopy(model.state_dict())
    fused = fuse(model)
    assert model.config == everything
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():  # nor do the two share memory
        for parameter in fused.parameters():
            parameter.fill_(7.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fusing_leaves_the_global_generator_alone(built, everything):
    model = built(everything)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fuse(model)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_fused_network_keeps_the_mode(built, everything, training: bool):
    assert fuse(built(everything).train(training)).training is training


def test_the_fused_network_keeps_the_precision(built, everything):
    fused = fuse(built(everything).double())
    assert {p.dtype for p in fused.parameters()} == {torch.float64}
    assert fused.hfir_cfg.dtype == torch.uint8


def test_state_dict_keys_differ_where_kernels_were_folded_and_nowhere_else(built, everything):
    model = built(everything)
    train, deploy = set(model.state_dict()), set(fuse(model).state_dict())
    places = [name for name, module in model.named_modules() if isinstance(module, RepLargeKernel)]
    assert places
    assert train - deploy == {n for n in train if n.startswith(tuple(f"{p}." for p in places))} - {
        f"{p}.bias" for p in places
    }
    assert deploy - train == {f"{p}.weight" for p in places}


def test_without_branches_the_keys_stay(built):
    model = built(HFIRConfig(mixer=LargeKernelConfig(reparam=False)))
    assert fuse(model).state_dict().keys() == model.state_dict().keys()


def branch(x: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """One branch as a convolution of its own, padded to keep the size."""
    padding = dilation * (weight.shape[-1] // 2)
    return nn.functional.conv2d(x, weight, padding=padding, dilation=dilation, groups=x.shape[1])


@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9, 13])
def test_one_kernel_equals_the_sum_of_separate_branches(image, kernel_size: int):
    torch.manual_seed(kernel_size)
    rep = RepLargeKernel(6, kernel_size).double()
    for parameter in rep.parameters():
        nn.init.normal_(parameter)
    x = image(2, 6, 17, 11).double()
    naive = branch(x, rep.full) + rep.bias[:, None, None] + branch(x, rep.point)
    naive = naive + rep.identity.view(1, -1, 1, 1) * x
    for weight in rep.inner.values():
        naive = naive + branch(x, weight)
    for dilation, weight in rep.dilated.items():
        naive = naive + branch(x, weight, int(dilation))
    torch.testing.assert_close(rep(x), naive, rtol=1e-10, atol=1e-10)


def test_branches_are_every_smaller_side_and_every_dilation_that_fits():
    # A 3x3 kernel of dilation r is 2r + 1 wide: 5 for r = 2, 7 for r = 3, 9 for r = 4.
    rep = RepLargeKernel(4, 9)
    assert {name: weight.shape[-1] for name, weight in rep.inner.items()} == {"3": 3, "5": 5, "7": 7}
    assert sorted(rep.dilated) == ["2", "3", "4"]
    assert not RepLargeKernel(4, 3).inner
    assert not RepLargeKernel(4, 3).dilated
    assert sorted(RepLargeKernel(4, 5).dilated) == ["2"]


def test_every_branch_learns(image):
    rep = RepLargeKernel(4, 7)
    (rep(image(1, 4, 9, 9)) ** 2).sum().backward()
    for name, parameter in rep.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_folding_is_as_exact_as_fp32_can_be():
    # Folding in fp64 rounds once. Huge branches that cancel would lose the rest in fp32: 1e8 + 1 - 1e8 = 0.
    rep = RepLargeKernel(2, 3)
    with torch.no_grad():
        rep.full.fill_(1e8)
        rep.point.fill_(1.0)
        rep.identity.fill_(-1e8)
    assert rep.folded()["weight"][:, :, 1, 1].flatten().tolist() == [1.0, 1.0]
