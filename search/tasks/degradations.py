"""What the network has to undo: each degradation turns a clean photograph into network input.

A degradation has two parts. `prepare` does what is the same every time, on a whole photograph, once; its
result is kept in 8 bits, as a file or a camera would. `degrade_patches` does what is drawn anew each time
(noise, the direction of a motion), on the patches of a batch at once. Network input is float32 on the scale
0 .. 1 throughout; added noise is neither clipped nor rounded, as is usual for synthetic noise.

A mixed task has several degradations, told apart by labels; `by_label` makes them and a single one alike.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from search.tasks.blurs import Kernels, convolved, disc_kernel, motion_kernels, motion_margin_px, with_margin
from search.tasks.images import Pixels
from search.tasks.members import DEFAULT_MEMBERS, MEMBERS, SKILLS
from search.tasks.ranges import RANGES
from search.tasks.resize import bicubic_down, imresize, round_to_uint8
from search.types import InputError

Levels = npt.NDArray[np.float32]
"""Network input: `[... h w c]`, 0 .. 1 but for noise."""


class Degradation(Protocol):
    """The seam for a new kind of damage."""

    @property
    def upscale(self) -> int:
        """How many times smaller than the clean photograph its degraded form is, per side."""
        ...

    @property
    def deterministic(self) -> bool:
        """Whether nothing is drawn: `degrade_patches` then only changes the scale to 0 .. 1."""
        ...

    @property
    def margin_px(self) -> int:
        """Pixels around a patch that `degrade_patches` looks at: they come with it and do not come back."""
        ...

    def prepare(self, clean: Pixels) -> Pixels:
        """Apply the fixed part to a photograph: `[h w c]` to `[h/upscale w/upscale c]`."""
        ...

    def degrade_patches(self, prepared: Pixels, rng: np.random.Generator) -> Levels:
        """Apply the drawn part to prepared patches `[b h+2m w+2m c]`, m = `margin_px`: `[b h w c]` comes back."""
        ...


def degrade_photo(degradation: Degradation, clean: Pixels, seed: int) -> Levels:
    """Degrade a photograph `[h w c]` to `[h/upscale w/upscale c]`, the same way for the same seed (>= 0)."""
    rng = np.random.default_rng(seed)
    prepared = with_margin(degradation.prepare(clean)[None], degradation.margin_px)
    return degradation.degrade_patches(prepared, rng)[0]


def to_levels(pixels: Pixels) -> Levels:
    """Bring 8-bit levels to the scale of networks, 0 .. 1."""
    return pixels.astype(np.float32) / np.float32(255)


def _with_noise(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Levels:
    """Scale to 0 .. 1 and add white Gaussian noise of `sigma` 8-bit levels."""
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    noise *= np.float32(sigma / 255)
    noise += to_levels(pixels)
    return noise


@dataclass(frozen=True, slots=True)
class SuperResolution:
    """Bicubic shrinking as MATLAB does it, the field's classical setting.

    Args:
        upscale: What the network has to enlarge by.

    Raises:
        InputError: If `upscale` is out of its range.
    """

    upscale: int
    deterministic: ClassVar[bool] = True
    margin_px: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check("super_resolution", "upscale", self.upscale)

    def prepare(self, clean: Pixels) -> Pixels:
        """Shrink `[h w c]` to `[h/upscale w/upscale c]`; both sides must be multiples of `upscale`."""
        return bicubic_down(clean, self.upscale)

    def degrade_patches(self, prepared: Pixels, rng: np.random.Generator) -> Levels:
        """Scale to 0 .. 1; nothing is drawn."""
        return to_levels(prepared)


@dataclass(frozen=True, slots=True)
class Denoise:
    """White Gaussian noise, drawn anew for every patch; neither clipped nor rounded.

    Args:
        sigma: Standard deviation in 8-bit levels; usual are 15, 25 and 50.

    Raises:
        InputError: If `sigma` is out of its range.
    """

    sigma: float
    upscale: ClassVar[int] = 1
    deterministic: ClassVar[bool] = False
    margin_px: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check("denoise", "sigma", self.sigma)

    def prepare(self, clean: Pixels) -> Pixels:
        """Leave the photograph as it is."""
        return clean

    def degrade_patches(self, prepared: Pixels, rng: np.random.Generator) -> Levels:
        """Scale to 0 .. 1 and add the noise."""
        return _with_noise(prepared, self.sigma, rng)


@dataclass(frozen=True, slots=True)
class Deblur:
    """Gaussian blur with a mirrored border, rounded to 8 bits as a camera does, then white noise.

    Args:
        blur_sigma_px: Standard deviation of the blur in pixels.
        noise_sigma: Standard deviation of the noise in 8-bit levels; 0 for none.

    Raises:
        InputError: If a value is out of its range.
    """

    blur_sigma_px: float
    noise_sigma: float = 0.0
    upscale: ClassVar[int] = 1
    margin_px: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check("deblur", "blur_sigma_px", self.blur_sigma_px)
        _check("deblur", "noise_sigma", self.noise_sigma)

    @property
    def deterministic(self) -> bool:
        """Whether the blur comes without noise."""
        return self.noise_sigma == 0

    def prepare(self, clean: Pixels) -> Pixels:
        """Blur the photograph `[h w c]`, channel by channel."""
        from skimage.filters import gaussian  # here: half a second that other tasks need not spend

        levels = clean.astype(np.float64)
        blurred = gaussian(
            levels, self.blur_sigma_px, mode="reflect", preserve_range=True, truncate=4.0, channel_axis=-1
        )
        return round_to_uint8(blurred)

    def degrade_patches(self, prepared: Pixels, rng: np.random.Generator) -> Levels:
        """Scale to 0 .. 1 and add the noise, if there is any."""
        return to_levels(prepared) if self.deterministic else _with_noise(prepared, self.noise_sigma, rng)


@dataclass(frozen=True, slots=True)
class Poisson:
    """Photon noise, drawn anew for every patch: `k / peak` with `k ~ Poisson(peak * x)`, x the clean level in 0 .. 1.

    Mean x, variance x / peak: bright places are noisier than dark ones, in levels. Neither clipped nor rounded.
    Hasinoff 2014, "Photon, Poisson noise"; strengths are told by the peak since Salmon et al. 2014 (1 .. 30 is usual).

    Args:
        peak: Photons that a pixel at full level stands for.

    Raises:
        InputError: If `peak` is out of its range.
    """

    peak: float
    upscale: ClassVar[int] = 1
    deterministic: ClassVar[bool] = False
    margin_px: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check("poisson", "peak", self.peak)

    def prepare(self, clean: Pixels) -> Pixels:
        """Leave the photograph as it is."""
        return clean

    def degrade_patches(self, prepared: Pixels, rng: np.random.Generator) -> Levels:
        """Count photons, and scale the counts to 0 .. 1."""
        photons = rng.poisson(prepared.astype(np.float64) * (self.peak / 255))
        return (photons / self.peak).astype(np.float32)


@dataclass(frozen=True, slots=True)
class MotionBlur:
    """Uniform motion along a line while the shutter is open, rounded to 8 bits as a camera does, then white noise.

    Args:
        length_px: Length of the path in pixels.
        angle_deg: Its direction in degrees, from the x axis towards the top; None to draw it anew for
            every patch, any direction as likely as another.
        noise_sigma: Standard deviation of the noise in 8-bit levels; 0 for none.

    Raises:
        InputError: If a value is out of its range.
    """

    length_px: float
    angle_deg: float | None = None
    noise_sigma: float = 0.0
    upscale: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check("motion_blur", "length_px", self.length_px)
        if self.angle_deg is not None:
            _check("motion_blur", "angle_deg", self.angle_deg)
        _check("motion_blur", "noise_sigma", self.noise_sigma)

    @property
    def deterministic(self) -> bool:
        """Whether the direction is given and there is no noise."""
        return self.angle_deg is not None and self.noise_sigma == 0

    @property
    def margin_px(self) -> int:
        """What the kernel reaches beyond a patch; nothing where whole photographs are blurred."""
        return motion_margin_px(self.length_px) if self.angle_deg is None else 0

    def prepare(self, clean: Pixels) -> Pixels:
        """Blur the photograph `[h w c]` with a mirrored border, where the direction is given."""
        if self.angle_deg is None:
            return clean
        kernel = motion_kernels(self.length_px, np.array([self.angle_deg]))
        return _blurred_photo(clean, kernel)

    def degrade_patches(self, prepared: Pixels, rng: np.random.Generator) -> Levels:
        """Blur each patch in a direction of its own, where none is given; add the noise, if there is any."""
        if self.angle_deg is None:
            kernels = motion_kernels(self.length_px, rng.uniform(0, 180, size=len(prepared)))
            prepared = round_to_uint8(convolved(prepared, kernels))
        return to_levels(prepared) if self.noise_sigma == 0 else _with_noise(prepared, self.noise_sigma, rng)


@dataclass(frozen=True, slots=True)
class Defocus:
    """The blur of an ideal lens out of focus: a disc; rounded to 8 bits as a camera does, then white noise.

    Args:
        radius_px: Of the disc in pixels.
        noise_sigma: Standard deviation of the noise in 8-bit levels; 0 for none.

    Raises:
        InputError: If a value is out of its range.
    """

    radius_px: float
    noise_sigma: float = 0.0
    upscale: ClassVar[int] = 1
    margin_px: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check("defocus", "radius_px", self.radius_px)
        _check("defocus", "noise_sigma", self.noise_sigma)

    @property
    def deterministic(self) -> bool:
        """Whether the blur comes without noise."""
        return self.noise_sigma == 0

    def prepare(self, clean: Pixels) -> Pixels:
        """Blur the photograph `[h w c]` with a mirrored border."""
        return _blurred_photo(clean, disc_kernel(self.radius_px))

    def degrade_patches(self, prepared: Pixels, rng: np.random.Generator) -> Levels:
        """Scale to 0 .. 1 and add the noise, if there is any."""
        return to_levels(prepared) if self.deterministic else _with_noise(prepared, self.noise_sigma, rng)


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A real JPEG file, written and read by Pillow, with chroma at half resolution (4:2:0).

    The whole photograph is encoded once; as patches are cut anywhere, the 8 x 8 grid lies
    differently in each.

    Args:
        quality: Pillow's quality; usual for restoration are 10 .. 40.

    Raises:
        InputError: If `quality` is out of its range.
    """

    quality: int
    upscale: ClassVar[int] = 1
    deterministic: ClassVar[bool] = True
    margin_px: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check("jpeg", "quality", self.quality)

    def prepare(self, clean: Pixels) -> Pixels:
        """Encode and decode the photograph `[h w 3]` or `[h w 1]`."""
        grey = clean.shape[-1] == 1
        file = io.BytesIO()
        Image.fromarray(clean[..., 0] if grey else clean).save(
            file, format="JPEG", quality=self.quality, subsampling="4:2:0"
        )
        with Image.open(file) as decoded:
            return np.array(decoded).reshape(clean.shape)

    def degrade_patches(self, prepared: Pixels, rng: np.random.Generator) -> Levels:
        """Scale to 0 .. 1; nothing is drawn."""
        return to_levels(prepared)


@dataclass(frozen=True, slots=True)
class LostDetail:
    """Half the resolution in each direction is lost: shrunk and enlarged again, both bicubic and rounded to 8 bits."""

    upscale: ClassVar[int] = 1
    deterministic: ClassVar[bool] = True
    margin_px: ClassVar[int] = 0

    def prepare(self, clean: Pixels) -> Pixels:
        """Shrink `[h w c]` to half its sides (odd ones rounded up, as MATLAB does) and enlarge it back."""
        height, width = clean.shape[:2]
        small = round_to_uint8(imresize(clean.astype(np.float64), -(-height // 2), -(-width // 2), scale=0.5))
        return round_to_uint8(imresize(small.astype(np.float64), height, width, scale=2.0))

    def degrade_patches(self, prepared: Pixels, rng: np.random.Generator) -> Levels:
        """Scale to 0 .. 1; nothing is drawn."""
        return to_levels(prepared)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Several degradations, one of which is drawn for each patch; for each there is an expert that should undo it.

    `texture` lost its detail (bicubic shrinking by 2 and back), `denoise` has white noise, `poisson` photon noise,
    `deblur`, `motion_blur` and `defocus` are blurred without noise, `artifact` was a JPEG file. A label is the index
    of a name in `names`.

    Args:
        sigma: Of `denoise` in 8-bit levels.
        blur_sigma_px: Of `deblur` in pixels.
        quality: Of `artifact`.
        peak: Of `poisson` in photons.
        length_px: Of `motion_blur` in pixels.
        angle_deg: Of `motion_blur`; None to draw it.
        radius_px: Of `defocus` in pixels.
        members: Names in `search.tasks.members.MEMBERS`, each once.

    Raises:
        InputError: If a value is out of its range, or a member is unknown or there twice.
    """

    sigma: float = 25.0
    blur_sigma_px: float = 1.6
    quality: int = 20
    peak: float = 30.0
    length_px: float = 9.0
    angle_deg: float | None = None
    radius_px: float = 2.5
    members: tuple[str, ...] = DEFAULT_MEMBERS
    upscale: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Check the values: each part knows its own range."""
        if not self.members or len(set(self.members)) < len(self.members) or set(self.members) - set(MEMBERS):
            raise InputError(
                f"mixed: members = [{', '.join(self.members)}] cannot be mixed. "
                f"Name each once, at least one, of {', '.join(MEMBERS)}."
            )
        _ = self.parts

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in the order of their labels."""
        return self.members

    @property
    def skills(self) -> tuple[int, ...]:
        """For each label the expert that should undo it, an index into `search.tasks.members.SKILLS`."""
        return tuple(SKILLS.index(MEMBERS[name].skill) for name in self.members)

    @property
    def parts(self) -> tuple[Degradation, ...]:
        """The degradations in the order of `names`."""
        return tuple(self._part(name) for name in self.members)

    def _part(self, name: str) -> Degradation:
        made: dict[str, Callable[[], object]] = {
            "texture": LostDetail,
            "denoise": lambda: Denoise(self.sigma),
            "deblur": lambda: Deblur(self.blur_sigma_px),
            "artifact": lambda: Jpeg(self.quality),
            "poisson": lambda: Poisson(self.peak),
            "motion_blur": lambda: MotionBlur(self.length_px, self.angle_deg),
            "defocus": lambda: Defocus(self.radius_px),
        }
        return cast("Degradation", made[name]())


def by_label(degradation: Degradation | Mixed | None) -> Mapping[int | None, Degradation]:
    """Return a task's degradations by their labels: one alone has the label None; none where files are given."""
    if isinstance(degradation, Mixed):
        return dict(enumerate(degradation.parts))
    return {} if degradation is None else {None: degradation}


DEGRADATIONS: Mapping[str, Callable[..., object]] = {
    "super_resolution": SuperResolution,
    "denoise": Denoise,
    "poisson": Poisson,
    "deblur": Deblur,
    "motion_blur": MotionBlur,
    "defocus": Defocus,
    "jpeg": Jpeg,
    "mixed": Mixed,
}
"""Every kind by its name in an experiment file."""


def _blurred_photo(clean: Pixels, kernel: Kernels) -> Pixels:
    """Convolve a photograph `[h w c]` with a kernel `[1 k k]`, its border mirrored; rounded to 8 bits."""
    margin = kernel.shape[-1] // 2
    return round_to_uint8(convolved(with_margin(clean[None], margin), kernel))[0]


def _check(kind: str, name: str, value: float) -> None:
    if not RANGES[name].low <= value <= RANGES[name].high:
        raise InputError(
            f"{kind}: {name} = {value} is out of range. It must lie in {RANGES[name]}: choose a value in that range."
        )
