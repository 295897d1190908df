"""What the refiner adds: moving taps and noise."""

import pytest
import torch
from torch.nn import functional as F

from hfir import ConfigError, DeformableRefinerConfig, DFTRefinerConfig, FrequencySplitConfig, HFIRConfig
from hfir.blocks.deformable import DeformableMix
from hfir.blocks.noise import NoiseInjection


def test_taps_that_stay_make_a_plain_convolution_behind_open_gates(image):
    mix, x = DeformableMix(6), image(2, 6, 7, 5)
    with torch.no_grad():
        plain = F.conv2d(x, mix.weight, padding=1, groups=6)
        expected = 0.880797 * plain + mix.bias[:, None, None]
        torch.testing.assert_close(mix(x), expected, rtol=1e-4, atol=1e-5)


def test_taps_move_by_what_the_features_say(image):
    mix, x = DeformableMix(1), image(1, 1, 9, 9)
    with torch.no_grad():
        mix.weight.zero_()
        mix.weight[0, 0, 1, 1] = 1.0  # the middle tap alone
        mix.bias.zero_()
        mix.open.conv.bias.fill_(100.0)
        mix.moves.bias[4] = 2.0  # its row
        mix.moves.bias[9 + 4] = -1.0  # its column
        expected = F.pad(x, (1, 0, 0, 2))[..., 2:, :-1]
        torch.testing.assert_close(mix(x), expected, rtol=1e-4, atol=1e-5)


def test_noise_is_silent_but_in_training_in_gan_mode_or_where_it_is_given(image):
    inject, x = NoiseInjection(3), image(2, 3, 4, 5)
    with torch.no_grad():
        inject.weight.fill_(0.5)
    for training in (True, False):
        for gan in (True, False):
            inject.train(training)
            inject.gan_mode = gan
            changed = not torch.equal(inject(x), x)
            assert changed is (training and gan)
    given = image(2, 1, 4, 5, seed=1)
    torch.testing.assert_close(inject.eval()(x, given), x + 0.5 * given)


REFINERS = [
    HFIRConfig(width=8, frequency_split=FrequencySplitConfig(), refiner=kind(depth=2, noise=True))
    for kind in (DFTRefinerConfig, DeformableRefinerConfig)
]


@pytest.mark.parametrize("config", REFINERS, ids=lambda c: c.refiner.kind)
def test_gan_mode_reaches_the_noise_of_a_network_and_eval_stays_deterministic(built, image, config: HFIRConfig):
    model, x = built(config, stirred=0.1), image(1, 3, 9, 10)
    with torch.no_grad():
        still = model(x)
        model.gan_mode(True)
        assert torch.equal(model(x), still)
        model.train()
        assert not torch.equal(model(x), model(x))
        model.gan_mode(False)
        assert torch.equal(model(x), model(x))
        model.eval()
        told = model(x, noise=image(1, 1, 9, 10, seed=2))
        assert not torch.equal(told, still)
        assert torch.equal(told, model(x, noise=image(1, 1, 9, 10, seed=2)))


def test_noise_that_nothing_would_inject_is_refused(built, image):
    with pytest.raises(ConfigError, match=r"refiner\.noise is off"):
        built(HFIRConfig(width=8))(image(1, 3, 8, 8), noise=image(1, 1, 8, 8))


def test_a_condition_of_another_length_is_refused(built, image):
    with pytest.raises(ConfigError, match=r"condition has 3 numbers, but experts\.condition_channels = 0"):
        built(HFIRConfig(width=8))(image(1, 3, 8, 8), condition=image(1, 3))
