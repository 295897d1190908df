"""Training losses: what is compared, what keeps experts in balance, and what plays against a discriminator."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hfir.blocks.moe import Routing
from hfir.config import EXPERT_NAMES
from hfir.errors import ConfigError, WeightsError

SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


def l1(restored: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Return the mean absolute difference."""
    return F.l1_loss(restored, clean)


def charbonnier(restored: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Return the mean of `sqrt(d² + 1e-6)`: L1 that is smooth at zero (Charbonnier et al., 1994)."""
    return _Charbonnier.apply(restored, clean)  # pyright: ignore[reportReturnType]


class _Charbonnier(torch.autograd.Function):
    """The loss and its gradient in seven passes over the image instead of fourteen, to the same bits."""

    @staticmethod
    def forward(ctx: Any, restored: Tensor, clean: Tensor) -> Tensor:
        difference = restored - clean
        root = difference.square().add_(1e-6).sqrt_()
        ctx.save_for_backward(difference, root)
        return root.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        difference, root = ctx.saved_tensors
        slope = torch.div(grad / difference.numel(), root).mul_(difference)
        of_restored, of_clean = ctx.needs_input_grad
        return slope if of_restored else None, -slope if of_clean else None


PIXEL_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"charbonnier": charbonnier, "l1": l1}


def load_balance(routing: Routing) -> Float[Tensor, ""]:
    """Return `E · Σ f_e P_e`: 1 when every expert gets its share, E when one gets all (arXiv 2101.03961, eq. 4).

    `f` is the share of choices that went to an expert (so it sums to 1 for any k), `P` its mean probability.
    """
    num_experts = routing.logits.shape[1]
    share = F.one_hot(routing.chosen, num_experts).float().mean(dim=(0, 1))
    return num_experts * (share * torch.softmax(routing.logits, dim=1).mean(dim=0)).sum()


def router_z(routing: Routing) -> Float[Tensor, ""]:
    """Return the mean squared log-sum-exp of the logits: keeps them small (ST-MoE, arXiv 2202.08906, eq. 5)."""
    return torch.logsumexp(routing.logits, dim=1).square().mean()


def routing_loss(routings: Iterable[Routing], *, balance: float = 0.01, z: float = 0.001) -> Float[Tensor, ""] | float:
    """Return the weighted sum of both router losses over all mixtures; 0.0 where there is none."""
    return sum((balance * load_balance(r) + z * router_z(r) for r in routings), start=0.0)


def routing_supervision(routings: Iterable[Routing], labels: Int[Tensor, " b"]) -> Float[Tensor, ""] | float:
    """Return the cross-entropy of each router's skills with the known ones, summed over all mixtures.

    A skill's probability is the sum over its experts. An image whose skill no expert has (fewer than four experts) is
    left out; the mean is over the rows of the others.

    Args:
        routings: The decisions [n e] of each mixture, n a multiple of b: the rows of an image follow each other.
        labels: The skill that each image asks for, an index into `EXPERT_NAMES`.
    """
    return sum((_skill_cross_entropy(r.logits, labels) for r in routings), start=0.0)


def _skill_cross_entropy(logits: Float[Tensor, "n e"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
    rows, num_experts = logits.shape
    every = len(EXPERT_NAMES)
    skills = min(every, num_experts)
    known = torch.log_softmax(logits, dim=1)
    of_skill = torch.stack([known[:, skill::every].logsumexp(dim=1) for skill in range(skills)], dim=1)
    wanted = labels.repeat_interleave(rows // labels.shape[0])
    counted = wanted < skills
    losses = F.nll_loss(of_skill, torch.where(counted, wanted, 0), reduction="none") * counted
    return losses.sum() / counted.sum().clamp(min=1)


def ssim_loss(restored: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Return 1 − SSIM of images on the scale 0 .. 1 (Wang et al. 2004), at least 11 × 11 pixels.

    Gaussian window of 11 × 11 pixels with sigma 1.5, averaged over channels and the positions where it lies inside.
    In fp32 under autocast too: variances are differences of nearly equal means.

    Raises:
        ConfigError: If the images are smaller than the window.
    """
    height, width = restored.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise ConfigError(
            f"ssim_loss: images of {width} x {height} px are smaller than its window. "
            f"They must be at least {SSIM_WINDOW} x {SSIM_WINDOW} px: train on larger patches."
        )
    with torch.autocast(restored.device.type, enabled=False):
        x, y = restored.float(), clean.float()
        mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blurred(torch.stack([x, y, x * x, y * y, x * y]))
        variances = (mean_xx - mean_x**2) + (mean_yy - mean_y**2)
        covariance = mean_xy - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + _SSIM_C1) / (mean_x**2 + mean_y**2 + _SSIM_C1)
        return 1 - (luminance * (2 * covariance + _SSIM_C2) / (variances + _SSIM_C2)).mean()


def _blurred(maps: Float[Tensor, "n b c h w"]) -> Float[Tensor, "n b c h2 w2"]:
    """Return Gaussian means around every position whose window lies inside, rows before columns."""
    offsets = torch.arange(SSIM_WINDOW, device=maps.device) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    weights = weights / weights.sum()
    flat = maps.flatten(0, 2).unsqueeze(1)
    flat = F.conv2d(F.conv2d(flat, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return flat.view(*maps.shape[:3], *flat.shape[-2:])


def frequency_loss(restored: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Return the mean absolute difference of the spectra's real and imaginary parts, in fp32.

    The transform is orthonormal: without that the weight of the term would grow with the crop's size.
    """
    with torch.autocast(restored.device.type, enabled=False):
        spectrum = torch.fft.rfft2(restored.float() - clean.float(), norm="ortho")
        return torch.view_as_real(spectrum).abs().mean()


class AdversarialLoss(NamedTuple):
    """What the two players minimise, on per-pixel logits of any shape."""

    generator: Callable[[Tensor], Tensor]
    """Of the logits of restored images."""
    discriminator: Callable[[Tensor, Tensor], Tensor]
    """Of the logits of real images, and of restored ones."""


def _vanilla_generator(fake: Tensor) -> Tensor:
    return F.softplus(-fake.float()).mean()


def _vanilla_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()


def _hinge_generator(fake: Tensor) -> Tensor:
    return -fake.float().mean()


def _hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def _least_squares_generator(fake: Tensor) -> Tensor:
    return (fake.float() - 1).square().mean() / 2


def _least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return ((real.float() - 1).square().mean() + fake.float().square().mean()) / 2


ADVERSARIAL_LOSSES: Mapping[str, AdversarialLoss] = {
    "vanilla": AdversarialLoss(_vanilla_generator, _vanilla_discriminator),
    "hinge": AdversarialLoss(_hinge_generator, _hinge_discriminator),
    "least_squares": AdversarialLoss(_least_squares_generator, _least_squares_discriminator),
}
"""Binary cross-entropy of logits (Goodfellow et al. 2014), hinge (Lim and Ye 2017), least squares (Mao et al. 2017)."""


class PerceptualLoss(nn.Module):
    """L1 between features of a trained backbone (Johnson et al. 2016, arXiv 1603.08155).

    The backbone comes from the user: code by import path, weights from a local file. Nothing is downloaded. It is
    frozen and stays in eval mode; its in-place activations are made ordinary ones, so that the features of a layer
    are those of that layer.

    Args:
        backbone: Import path of a function or class without arguments that makes it, `package.module:factory`.
        weights: Its weights: safetensors, or a state dict that `torch.save` wrote.
        layers: Names of the modules whose outputs are compared (as `named_modules` has them), and their weights.
        mean: What the backbone expects to be subtracted from each channel.
        std: What it expects each channel to be divided by then.

    Raises:
        ConfigError: If the import path leads to no module, or a layer is unknown.
        WeightsError: If the file is missing or damaged, or does not fit the backbone.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        weights: Path,
        layers: Mapping[str, float],
        *,
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        self.backbone, self.layers = _made(backbone), dict(layers)
        known = dict(self.backbone.named_modules())
        for name in self.layers:
            if name not in known:
                raise ConfigError(
                    f"perceptual loss: {backbone} has no layer {name!r}. Use names of its modules: "
                    f"{', '.join(list(known)[1:13])}{', …' if len(known) > 13 else ''}."
                )
        _load_weights(self.backbone, weights, backbone)
        for module in self.backbone.modules():
            if "inplace" in vars(module):
                vars(module)["inplace"] = False
        self.requires_grad_(False).train()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """Stay in eval mode whatever is asked for: the backbone is a fixed yardstick."""
        return super().train(False)

    def forward(self, restored: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
        """Return the weighted sum over the layers of the mean absolute difference of features."""
        with torch.no_grad():
            wanted = self.features(clean)
        found = self.features(restored)
        terms = [weight * F.l1_loss(found[name].float(), wanted[name].float()) for name, weight in self.layers.items()]
        return torch.stack(terms).sum()

    def features(self, image: Float[Tensor, "b c h w"]) -> dict[str, Tensor]:
        """Return the outputs of the named layers for images on the scale 0 .. 1."""
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda module, inputs, output: found.__setitem__(name, output)

        hooks = [self.backbone.get_submodule(name).register_forward_hook(keep(name)) for name in self.layers]
        try:
            self.backbone((image - self.mean) / self.std)
        finally:
            for hook in hooks:
                hook.remove()
        return found


def _made(path: str) -> nn.Module:
    """Import a factory and call it."""
    module, _, name = path.partition(":")
    try:
        made = getattr(import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"perceptual loss: backbone {path!r} cannot be made ({error}). Give package.module:factory, where "
            "factory() needs no arguments and the package can be imported from here."
        ) from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"perceptual loss: {path}() is a {type(made).__name__}. It must return a torch.nn.Module.")
    return made


def _load_weights(backbone: nn.Module, path: Path, name: str) -> None:
    """Load a local file into the backbone; every key must fit."""
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file. The perceptual loss needs the weights of {name} in a local file: give its path."
        )
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise WeightsError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}). "
            "Give safetensors, or a plain state dict of tensors."
        ) from error
    try:
        backbone.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        found = str(error).splitlines()
        raise WeightsError(
            f"{path}: does not fit {name} ({found[min(1, len(found) - 1)].strip()}). Use the weights of that backbone."
        ) from error
