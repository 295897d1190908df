"""Reference networks: the papers' figures, the deploy form, and one clear error for each way a user's may be wrong."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hfir.blocks.conv import ToPixels
from hfir.blocks.prelu import PReLU
from search.references.edsr import EDSR
from search.references.fsrcnn import FSRCNN
from search.references.loading import build, deploy_form, load_module
from search.references.networks import BUILT_IN
from search.references.plan import ReferencePlan
from search.references.rep_stack import EDGE_FILTERS, RepConv, RepStack
from search.types import InputError, SpecError

TASK = {"in_channels": 3, "upscale": 2}

MODULES = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, upscale, width=4, in_channels=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.Conv2d(width, in_channels * upscale**2, 3, padding=1),
            nn.PixelShuffle(upscale),
        )
    def forward(self, x):
        return self.layers(x)

class Nan(Net):
    def forward(self, x):
        return super().forward(x) * float("nan")

class Pair(Net):
    def forward(self, x):
        return super().forward(x), x

class Raises(Net):
    def forward(self, x):
        raise RuntimeError("no such kernel")

class BadFuse(Net):
    def fuse(self):
        self.layers[0].bias.data += 1.0

class InPlace(Net):
    def deploy(self):
        self.deployed = True

def words():
    return "a network"

WIDTH = 7
"""


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return a folder with a module of the user's, and the module's name, which no other test has."""
    name = "nets_" + str(abs(hash(request.node.name)))
    (tmp_path / f"{name}.py").write_text(MODULES)
    return str(tmp_path), name


def numel(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# -- what is built in --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize(("in_channels", "upscale"), [(1, 1), (3, 2), (3, 3), (1, 4)])
def test_each_restores_any_size_at_any_scale_and_deploys(name: str, in_channels: int, upscale: int):
    network = build(ReferencePlan(name=name, network=name), in_channels=in_channels, upscale=upscale)
    output = deploy_form(network)(torch.rand(2, in_channels, 5, 7))
    assert output.shape == (2, in_channels, 5 * upscale, 7 * upscale)


def test_edsr_baseline_has_the_parameters_that_it_is_published_with():
    # Conv(3,64) 1,792; 16 blocks of 2·36,928; conv 36,928; to 256 channels 147,712; conv(64,3) 1,731: 1.37 M.
    assert numel(EDSR(3, 2)) == 1_792 + 16 * 2 * 36_928 + 36_928 + 147_712 + 1_731 == 1_369_859


def test_fsrcnn_has_the_parameters_that_it_is_published_with():
    # Weights alone on luma (table 1 of the paper): 25·56 + 56·12 + 4·9·144 + 12·56 + 81·56 = 12,464.
    network = FSRCNN(1, 3)
    weights = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    assert weights == 12_464


def test_at_scale_1_nothing_resamples():
    for name in BUILT_IN:
        network = build(ReferencePlan(name=name, network=name), in_channels=3, upscale=1)
        assert not any(isinstance(m, nn.PixelShuffle) for m in network.modules())
    image = torch.rand(1, 3, 9, 9)
    flat = FSRCNN(3, 1)
    as_convolution = F.conv2d(
        flat.features(image), flat.enlarge.weight.transpose(0, 1).flip(2, 3), flat.enlarge.bias, padding=4
    )
    assert torch.allclose(flat(image), as_convolution, atol=1e-6)
    assert torch.equal(BUILT_IN["bicubic"](3, 1)(image), image)


def test_on_a_base_a_network_of_zeros_is_the_base():
    for network in (FSRCNN(3, 2, base=True), EDSR(3, 2, blocks=1, width=4, base=True)):
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        image = torch.rand(1, 3, 8, 8)
        assert torch.allclose(network(image), BUILT_IN["bicubic"](3, 2)(image))


# -- the re-parameterised stack ----------------------------------------------------------------------


def test_a_rep_convolution_is_the_sum_of_its_branches_written_out():
    torch.manual_seed(0)
    rep = RepConv(4, 4, 2)
    for scale in rep.scales.values():
        nn.init.normal_(scale)
    image = torch.rand(1, 4, 9, 9)
    inner = image  # without a border: the branches of two convolutions pad by the first one's bias
    total = rep.full(inner) + rep.squeeze(rep.expand(inner)) + inner[..., 1:-1, 1:-1]
    for name, values in EDGE_FILTERS.items():
        kernel = torch.tensor(values).expand(4, 1, 3, 3)
        total = total + rep.scales[name][:, None, None] * F.conv2d(rep.points[name](inner), kernel, groups=4)
    assert torch.allclose(rep(image)[..., 1:-1, 1:-1], total, atol=1e-5)


def test_the_folded_stack_is_plain_convolutions_and_gives_the_same_image():
    torch.manual_seed(1)
    network = RepStack(3, 2, width=8, depth=2).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    deployed = network.fuse()
    image = torch.rand(1, 3, 11, 7)
    assert torch.allclose(network(image), deployed(image), atol=1e-5)
    assert {type(m) for m in deployed.body} == {ToPixels, PReLU}
    # 3×3: 3→8, 8→8 twice, 8→12, with biases, and a PReLU of 8 after the first three.
    assert numel(deployed) == (3 * 9 + 1) * 8 + 2 * (8 * 9 + 1) * 8 + (8 * 9 + 1) * 12 + 3 * 8
    assert isinstance(network.body[0], RepConv), "the training form is left as it is"
    assert numel(deployed.fuse()) == numel(deployed)


def test_a_stack_of_zeros_repeats_each_pixel():
    network = RepStack(3, 2)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    image = torch.rand(1, 3, 6, 6)
    middle = network(image)
    assert torch.allclose(middle, F.interpolate(image, scale_factor=2, mode="nearest"))


# -- a user's own ------------------------------------------------------------------------------------


def test_a_users_network_is_told_channels_and_scale_where_it_asks_for_them(folder: tuple[str, str]):
    path, name = folder
    network = load_module(f"{name}:Net", {"width": 6}, **TASK, folder=path)
    assert network(torch.rand(1, 3, 4, 4)).shape == (1, 3, 8, 8)
    assert load_module("torch.nn:Identity", {}, in_channels=1, upscale=1)(torch.ones(1)) == 1.0


def test_a_module_that_deploys_in_place_is_deployed_as_a_copy(folder: tuple[str, str]):
    path, name = folder
    network = load_module(f"{name}:InPlace", {}, **TASK, folder=path)
    assert deploy_form(network).deployed  # pyright: ignore[reportAttributeAccessIssue]
    assert not hasattr(network, "deployed")
    assert network.training


@pytest.mark.parametrize(
    ("factory", "args", "problem"),
    [
        ("Nett", {}, "has no Nett.\n  It has Net, Nan, Pair, Raises, BadFuse, InPlace, words."),
        ("Net.deeper", {}, "has no Net.deeper."),
        ("WIDTH", {}, "is of type int, which cannot be called.\n  Name a class, or a function"),
        ("Net", {"widht": 4}, "got an unexpected keyword argument 'widht'.\n  It takes upscale, width, in_channels."),
        ("words", {}, "returns str.\n  A factory returns a torch.nn.Module."),
        ("Net", {"upscale": 3}, "it returns [1, 3, 48, 48], expected is [1, 3, 32, 32].\n  The task's scale is 2"),
        ("Net", {"in_channels": 1}, "it raises RuntimeError: Given groups=1, weight of size [4, 1, 3, 3]"),
        ("Raises", {}, "it raises RuntimeError: no such kernel on an input of [1, 3, 16, 16]."),
        ("Pair", {}, "it returns tuple where an image is expected."),
        ("Nan", {}, "its output on a random image is not finite."),
        ("BadFuse", {}, "its deploy form differs from the network by up to"),
    ],
)
def test_each_fault_of_a_users_network_is_one_message(folder: tuple[str, str], factory: str, args: dict, problem: str):
    path, name = folder
    with pytest.raises(InputError) as fault:
        load_module(f"{name}:{factory}", args, **TASK, folder=path)
    assert problem in str(fault.value)


@pytest.mark.parametrize(
    ("module", "text", "problem"),
    [
        ("nets_absent", None, "there is no module nets_absent.\n  It is looked for in {folder} and among"),
        ("nets_needy", "import no_such_package", "importing nets_needy raises ModuleNotFoundError: No module named"),
        ("nets_torn", "def f(:", "importing nets_torn raises SyntaxError: invalid syntax"),
        ("math", "Net = 1", "the name math is taken by"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told(tmp_path: Path, module: str, text: str | None, problem: str):
    if text is not None:
        (tmp_path / f"{module}.py").write_text(text)
    with pytest.raises(InputError) as fault:
        load_module(f"{module}:Net", {}, **TASK, folder=str(tmp_path))
    assert problem.format(folder=tmp_path) in str(fault.value)


def test_the_error_leads_to_the_line_that_names_the_network(folder: tuple[str, str]):
    path, name = folder
    plan = ReferencePlan(name="ours", module=f"{name}:Nan", folder=path, source="mine.yaml", line=7)
    with pytest.raises(SpecError) as fault:
        build(plan, **TASK)
    assert str(fault.value) == (
        "mine.yaml:7: ours: its output on a random image is not finite.\n  Check how it is initialised."
    )


def test_another_text_of_a_users_module_is_another_network(folder: tuple[str, str]):
    path, name = folder
    plan = ReferencePlan(name="ours", module=f"{name}:Net", folder=path)
    before = plan.key
    assert ReferencePlan(name="other name", module=f"{name}:Net", folder=path, line=3).key == before
    (Path(path) / f"{name}.py").write_text(MODULES + "\n")
    assert plan.key != before
