"""The discriminator: any size, a logit a pixel, bounded layers, and that it learns."""

import pytest
import torch

from hfir import ConfigError
from hfir.discriminator import UNetDiscriminator
from hfir.losses import ADVERSARIAL_LOSSES


def made(width: int = 4, channels: int = 3) -> UNetDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNetDiscriminator(channels, width)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 13), (32, 17), (15, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_gets_a_logit(image, height: int, width: int, channels: int):
    logits = made(channels=channels)(image(2, channels, height, width))
    assert logits.shape == (2, 1, height, width)
    assert logits.isfinite().all()


def test_an_image_without_a_pixel_at_the_deepest_level_is_refused(image):
    with pytest.raises(ConfigError, match="30 x 7 px is too small"):
        made()(image(1, 3, 7, 30))


def test_no_normed_layer_stretches_more_than_by_one():
    discriminator = made(width=8).train()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.mul_(5.0)
    for _ in range(30):  # each pass in training refines the estimate of the largest singular value
        discriminator(torch.rand(1, 3, 8, 8))
    normed = [*discriminator.down, *discriminator.up, *discriminator.refine]
    assert len(normed) == 8
    for layer in normed:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert largest.item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_it_learns_to_tell_sharp_from_smooth_in_a_few_steps(image, name: str):
    discriminator = made(width=8)
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=2e-3)
    for step in range(30):
        sharp = image(4, 3, 16, 16, seed=step)
        smooth = torch.nn.functional.avg_pool2d(sharp, 3, stride=1, padding=1)
        real, fake = discriminator(torch.cat([sharp, smooth])).chunk(2)
        optimiser.zero_grad()
        ADVERSARIAL_LOSSES[name].discriminator(real, fake).backward()
        optimiser.step()
    sharp = image(8, 3, 16, 16, seed=999)
    smooth = torch.nn.functional.avg_pool2d(sharp, 3, stride=1, padding=1)
    with torch.no_grad():
        real, fake = (discriminator(x).mean(dim=(1, 2, 3)) for x in (sharp, smooth))
    assert real.min() > fake.max()
