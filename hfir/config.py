"""What a network is built from: frozen, validated, and free of torch.

Every rule of the network lives here, once. Off means None: no field stands beside a switch that ignores it.
Options that come in kinds (mixer, attention, refiner) carry a class attribute `kind`, the name of their slot.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, ClassVar, get_args, get_origin

from hfir.errors import ConfigError

SCHEMA = 1
UPSCALES = (1, 2, 3, 4)
IN_CHANNELS = (1, 3, 4)
WINDOW_SIZES = (4, 8, 12, 16)
WINDOW_OVERLAPS = (0.0, 0.5)
TOKEN_COUNTS = (0, 4, 8, 16)
ROUTING_PX = 16
"""Side of the windows of per-window routing, in pixels of the stage's features."""
DFT_PX = 8
"""Side of the patches whose frequencies the refiner mixes, in pixels."""
MAX_LEVELS = 4

EXPERT_NAMES = ("texture", "denoise", "deblur", "artifact")
"""What the experts of a mixture are for, in their order; further experts take up the names again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NAFConfig:
    """Depth-wise 3×3 mixing, as in NAFNet (Chen et al., 2022, arXiv 2204.04676)."""

    kind: ClassVar[str] = "naf"


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeKernelConfig:
    """Depth-wise K×K mixing, K odd in 3..13; `reparam` trains it as a sum of branches."""

    kind: ClassVar[str] = "large_kernel"
    kernel_size: int = 7
    reparam: bool = True

    def __post_init__(self) -> None:
        """Check the kernel."""
        _check_types(self, "mixer.")
        if self.kernel_size not in range(3, 14, 2):
            raise ConfigError(
                f"mixer.kernel_size = {self.kernel_size}: a large kernel is odd and in 3..13 pixels. "
                "Use 3, 5, 7, 9, 11 or 13 (11 and 13 are slow on CPUs)."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseConfig:
    """One dense 3×3 convolution and a PReLU a block: no norm, no gate, no residual.

    So `expansion` and `channel_attention` say nothing of these blocks; attention and experts expand as they always do.
    """

    kind: ClassVar[str] = "dense"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAttentionConfig:
    """Shifted-window attention (Liu et al., 2021, arXiv 2103.14030) after each block of the stages.

    Args:
        window_size: Side of the windows whose pixels ask, in pixels.
        num_heads: Heads; they divide the channels of each stage.
        overlap: By how much of its side the window that answers is larger: 0, or 0.5 (a quarter at each side).
        num_tokens: Summaries of the whole image that every window sees beside its pixels; 0 for none.
        stages: Where.
    """

    kind: ClassVar[str] = "window"
    window_size: int = 8
    num_heads: int = 2
    overlap: float = 0.0
    num_tokens: int = 0
    stages: tuple[str, ...] = ("mid",)

    def __post_init__(self) -> None:
        """Check the window and the heads; the stages are checked by `HFIRConfig`."""
        _check_types(self, "attention.")
        if self.window_size not in WINDOW_SIZES:
            raise ConfigError(
                f"attention.window_size = {self.window_size}: windows are 4, 8, 12 or 16 pixels wide. Use one of these."
            )
        _check_heads(self.num_heads)
        _one_of("attention.overlap", self.overlap, WINDOW_OVERLAPS)
        _one_of("attention.num_tokens", self.num_tokens, TOKEN_COUNTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelAttentionConfig:
    """Attention between channels, linear in the pixels (Restormer's MDTA, arXiv 2111.09881), after each block."""

    kind: ClassVar[str] = "channel"
    num_heads: int = 2
    stages: tuple[str, ...] = ("mid",)

    def __post_init__(self) -> None:
        """Check the heads; the stages are checked by `HFIRConfig`."""
        _check_types(self, "attention.")
        _check_heads(self.num_heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEConfig:
    """Sparse mixture of experts at the end of the stages.

    Args:
        num_experts: Experts, named after `EXPERT_NAMES`.
        top_k: How many of them work on one image or window, 1 or 2.
        routing: `image`: one decision for the image; `window`: one for each 16×16 window of the features.
        condition_channels: Length of the degradation descriptor that `forward` may be given; 0 for none.
        temperature: Divides the router's logits; above 0. Larger is more even.
        noise: Standard deviation of what is added to the logits while training, >= 0; never in eval.
        stages: Where; `refiner` is legal where there is one.
    """

    num_experts: int = 4
    top_k: int = 1
    routing: str = "image"
    condition_channels: int = 0
    temperature: float = 1.0
    noise: float = 0.0
    stages: tuple[str, ...] = ("mid",)

    @property
    def names(self) -> tuple[str, ...]:
        """What each expert is for: `texture`, `denoise`, `deblur`, `artifact`, `texture 2` and so on."""
        rounds = [divmod(i, len(EXPERT_NAMES)) for i in range(self.num_experts)]
        return tuple(EXPERT_NAMES[i] + (f" {lap + 1}" if lap else "") for lap, i in rounds)

    def __post_init__(self) -> None:
        """Check the values; the stages are checked by `HFIRConfig`."""
        _check_types(self, "experts.")
        _one_of("experts.routing", self.routing, ("image", "window"))
        if self.condition_channels < 0 or self.noise < 0 or self.temperature <= 0:
            raise ConfigError(
                f"experts: condition_channels = {self.condition_channels}, noise = {self.noise}, temperature = "
                f"{self.temperature}: the first two are at least 0, the temperature is above 0. Raise what is below."
            )
        if self.num_experts < 2:
            raise ConfigError(
                f"experts.num_experts = {self.num_experts}: a mixture has at least 2 experts. "
                "Use 2 or more, or no mixture at all (experts: None)."
            )
        if self.top_k not in (1, 2) or self.top_k > self.num_experts:
            raise ConfigError(
                f"experts.top_k = {self.top_k} with num_experts = {self.num_experts}: "
                "an image goes to 1 or 2 of the experts. Use 1 or 2."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencySplitConfig:
    """Additive split of the stem's features into a smooth band and the rest."""

    kernel_size: int = 5

    def __post_init__(self) -> None:
        """Check the blur."""
        _check_types(self, "frequency_split.")
        if self.kernel_size not in (3, 5, 7):
            raise ConfigError(
                f"frequency_split.kernel_size = {self.kernel_size}: the blur is 3, 5 or 7 pixels wide "
                "(an even one would shift the image by half a pixel). Use one of these."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DFTRefinerConfig:
    """`depth` detail blocks on the high band, mixing 8×8 patches in the frequency domain.

    With `noise`, each block may add noise that it learned to weigh, in GAN mode only.
    """

    kind: ClassVar[str] = "dft"
    depth: int = 1
    noise: bool = False

    def __post_init__(self) -> None:
        """Check the depth."""
        _check_types(self, "refiner.")
        _check_depth(self.depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeformableRefinerConfig:
    """`depth` detail blocks on the high band, mixing by 3×3 kernels whose taps move with the content.

    With `noise`, each block may add noise that it learned to weigh, in GAN mode only.
    """

    kind: ClassVar[str] = "deformable"
    depth: int = 1
    noise: bool = False

    def __post_init__(self) -> None:
        """Check the depth."""
        _check_types(self, "refiner.")
        _check_depth(self.depth)


MixerConfig = NAFConfig | LargeKernelConfig | DenseConfig
AttentionConfig = WindowAttentionConfig | ChannelAttentionConfig
RefinerConfig = DFTRefinerConfig | DeformableRefinerConfig

_KINDS: Mapping[str, Mapping[str, type]] = {
    "mixer": {c.kind: c for c in (NAFConfig, LargeKernelConfig, DenseConfig)},
    "attention": {c.kind: c for c in (WindowAttentionConfig, ChannelAttentionConfig)},
    "refiner": {c.kind: c for c in (DFTRefinerConfig, DeformableRefinerConfig)},
}
_PARTS: Mapping[str, type] = {"experts": MoEConfig, "frequency_split": FrequencySplitConfig}


@dataclass(frozen=True, slots=True, kw_only=True)
class HFIRConfig:
    """A HydraFusionIR network, complete: two equal configurations build the same network.

    Stages are named `enc1 … encL`, `mid`, `decL … dec1`, where the number is the level: level 1 works at full
    resolution with `width` channels, each further level at half the side with twice the channels.

    Args:
        upscale: 1 for restoration, 2, 3 or 4 for super-resolution.
        in_channels: 1 (grey), 3 (colour) or 4; the output has as many.
        width: Channels at full resolution, an even number in 4..256.
        encoder_blocks: Blocks of each encoder stage from level 1 down; its length is the number of levels.
        bottleneck_blocks: Blocks at the deepest level, between encoder and decoder; 0 or more.
        decoder_blocks: Blocks of each decoder stage from the deepest level up; 0 or more each.
        mixer: The spatial mixing inside each trunk block.
        channel_attention: Whether trunk blocks (but for dense ones) scale their channels by a map of their means over
            the image (NAFNet's SCA). It makes a tile's result depend on the tile.
        expansion: Channels after a gated block's expanding 1×1 convolution as a multiple of its width, in 1..4;
            the gate halves them again.
        attention: Where and how windows attend, or None.
        experts: Where and how many experts, or None.
        downsampler: `strided` or `unshuffle`; ignored by no one: with one level there is nothing to sample.
        upsampler: `pixelshuffle`, `nearest` or `dysample`.
        skip: How the decoder joins what the encoder sends across: `gated`, `add` or `concat`.
        frequency_split: How the stem's features are split, or None.
        refiner: The detail branch on the high band, or None. Needs `frequency_split`.
        residual_scale: Start value of the learned residual scales; small, not 0 (short trainings).
        fused: True for the deploy form, in which re-parameterised kernels are folded (see `hfir.fuse`).

    Raises:
        ConfigError: If a value breaks a rule of the network.
    """

    upscale: int = 2
    in_channels: int = 3
    width: int = 16
    encoder_blocks: tuple[int, ...] = (1,)
    bottleneck_blocks: int = 1
    decoder_blocks: tuple[int, ...] = (1,)
    mixer: MixerConfig = field(default_factory=NAFConfig)
    channel_attention: bool = True
    expansion: float = 2.0
    attention: AttentionConfig | None = None
    experts: MoEConfig | None = None
    downsampler: str = "strided"
    upsampler: str = "pixelshuffle"
    skip: str = "gated"
    frequency_split: FrequencySplitConfig | None = None
    refiner: RefinerConfig | None = None
    residual_scale: float = 0.1
    fused: bool = False

    def __post_init__(self) -> None:
        """Check every rule that one value alone, or two together, can break."""
        _check_types(self, "")
        self._check_values()
        self._check_blocks()
        self._check_attention()
        if self.experts is not None:
            places = self.stages if self.refiner is None else (*self.stages, "refiner")
            self._check_stages("experts", self.experts.stages, places)
        if self.refiner is not None and self.frequency_split is None:
            raise ConfigError(
                f"refiner = {self.refiner.kind} without frequency_split: the refiner works on the high band. "
                "Switch the frequency split on, or the refiner off."
            )

    @property
    def levels(self) -> int:
        """Resolutions that the network works at; each level halves the side."""
        return len(self.encoder_blocks)

    @property
    def multiple_of(self) -> int:
        """The input is padded to a multiple of this many pixels."""
        return int(2 ** (self.levels - 1))

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages in the order of the data."""
        depth = range(1, self.levels + 1)
        return (*(f"enc{i}" for i in depth), "mid", *(f"dec{i}" for i in reversed(depth)))

    def blocks_at(self, stage: str) -> int:
        """Trunk blocks of a stage, by its name."""
        if stage == "mid":
            return self.bottleneck_blocks
        level = int(stage[3:])
        return self.encoder_blocks[level - 1] if stage.startswith("enc") else self.decoder_blocks[self.levels - level]

    @property
    def grid_px(self) -> int:
        """Windows and patches lie on grids of the input that repeat after this many pixels.

        Tiles that start at its multiples cut no window otherwise than the whole image does.
        """
        sides = [self.multiple_of]
        if isinstance(self.attention, WindowAttentionConfig):
            sides += [self.attention.window_size * self.scale_at(stage) for stage in self.attention.stages]
        if self.experts is not None and self.experts.routing == "window":
            sides += [ROUTING_PX * self.scale_at(stage) for stage in self.experts.stages]
        if isinstance(self.refiner, DFTRefinerConfig):
            sides.append(DFT_PX)
        return math.lcm(*sides)

    @property
    def has_global_path(self) -> bool:
        """Whether each output pixel depends on the whole image, so that tiles give a slightly other result."""
        summaries = isinstance(self.attention, WindowAttentionConfig) and self.attention.num_tokens > 0
        channels = isinstance(self.attention, ChannelAttentionConfig)
        per_image = self.experts is not None and self.experts.routing == "image"
        scaled = self.channel_attention and not isinstance(self.mixer, DenseConfig)
        return scaled or summaries or channels or per_image

    @property
    def supports_fp16(self) -> bool:
        """Whether half precision (not bf16) is safe: attention is known to overflow in trained networks of others."""
        return self.attention is None

    def scale_at(self, stage: str) -> int:
        """Pixels of the input that one pixel of a stage stands for, along a side; `refiner` is at full resolution."""
        return self.channels_at(stage) // self.width

    def channels_at(self, stage: str) -> int:
        """Channels of a stage, by its name; the `refiner` has those of full resolution."""
        if stage == "refiner":
            return self.width
        level = self.levels if stage == "mid" else int(stage[3:])
        return int(self.width * 2 ** (level - 1))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values that `from_dict` turns into an equal configuration."""
        data: dict[str, Any] = {"schema": SCHEMA}
        for f in dataclasses.fields(self):
            data[f.name] = _plain(getattr(self, f.name))
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "HFIRConfig":
        """Read what `to_dict` wrote.

        Raises:
            ConfigError: If a key is unknown (the nearest known one is named), the schema is newer than this
                package, or a value breaks a rule.
        """
        schema = data.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise ConfigError(
                f"schema = {schema}: this version of hfir reads schema {SCHEMA}. "
                "Install the version of hfir-search that wrote the file."
            )
        rest = {k: v for k, v in data.items() if k != "schema"}
        return _build(cls, "", {k: _nested(k, v) for k, v in rest.items()})

    def to_json_bytes(self) -> bytes:
        """Return the configuration as compact JSON, as weight files carry it."""
        return json.dumps(self.to_dict(), separators=(",", ":"), sort_keys=True).encode()

    def _check_values(self) -> None:
        _one_of("upscale", self.upscale, UPSCALES)
        _one_of("in_channels", self.in_channels, IN_CHANNELS)
        _one_of("downsampler", self.downsampler, ("strided", "unshuffle"))
        _one_of("upsampler", self.upsampler, ("pixelshuffle", "nearest", "dysample"))
        _one_of("skip", self.skip, ("gated", "add", "concat"))
        if not (4 <= self.width <= 256 and self.width % 2 == 0):
            raise ConfigError(f"width = {self.width}: the width is an even number in 4..256. Use 8, 16, 24, …")
        if not 1.0 <= self.expansion <= 4.0:
            raise ConfigError(f"expansion = {self.expansion}: blocks expand 1 to 4 times. Use 2, for instance.")

    def _check_blocks(self) -> None:
        encoder, decoder = self.encoder_blocks, self.decoder_blocks
        if not 1 <= len(encoder) <= MAX_LEVELS or len(encoder) != len(decoder):
            raise ConfigError(
                f"encoder_blocks = {list(encoder)}, decoder_blocks = {list(decoder)}: "
                f"both have one entry per level, 1 to {MAX_LEVELS} of them. Make their lengths equal."
            )
        if min(encoder) < 1 or min(*decoder, self.bottleneck_blocks) < 0:
            raise ConfigError(
                f"encoder_blocks = {list(encoder)}, bottleneck_blocks = {self.bottleneck_blocks}, "
                f"decoder_blocks = {list(decoder)}: an encoder stage has at least 1 block, "
                "the others at least 0. Raise the smaller ones."
            )

    def _check_attention(self) -> None:
        if self.attention is None:
            return
        self._check_stages("attention", self.attention.stages, self.stages)
        for stage in self.attention.stages:
            channels, heads = self.channels_at(stage), self.attention.num_heads
            if channels % heads:
                fits = ", ".join(str(n) for n in range(1, channels + 1) if channels % n == 0 and n <= 16)
                raise ConfigError(
                    f"attention.num_heads = {heads} does not divide the {channels} channels of stage {stage} "
                    f"(width = {self.width}). Use one of {fits}, or another width."
                )

    def _check_stages(self, part: str, stages: tuple[str, ...], places: tuple[str, ...]) -> None:
        unknown = [s for s in stages if s not in places]
        if unknown or not stages or len(set(stages)) != len(stages):
            raise ConfigError(
                f"{part}.stages = {list(stages)}: with levels = {self.levels} the stages are "
                f"{', '.join(places)}. Name one or more of these, each once."
            )


def _check_heads(num_heads: int) -> None:
    if num_heads < 1:
        raise ConfigError(f"attention.num_heads = {num_heads}: at least one head is needed. Use 1.")


def _check_depth(depth: int) -> None:
    if not 1 <= depth <= 8:
        raise ConfigError(f"refiner.depth = {depth}: a refiner has 1 to 8 blocks. Use one of these.")


def _check_types(part: Any, prefix: str) -> None:
    """Refuse a value of another type than its field's; JSON and YAML may hold anything."""
    for f in dataclasses.fields(part):
        value = getattr(part, f.name)
        if not _fits(value, f.type):
            wanted = f.type.__name__ if isinstance(f.type, type) and get_origin(f.type) is None else str(f.type)
            raise ConfigError(
                f"{prefix}{f.name} = {value!r}: a value of type {wanted.replace('hfir.config.', '')} is expected. "
                "Write one of that type."
            )


def _fits(value: Any, wanted: Any) -> bool:
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is UnionType:
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)  # pyright: ignore[reportUnknownVariableType]
    if wanted is float:
        return type(value) in (int, float) and math.isfinite(value)
    if wanted is NoneType:
        return value is None
    return type(value) is wanted


def _one_of(name: str, value: Any, legal: tuple[Any, ...]) -> None:
    if value not in legal:
        raise ConfigError(f"{name} = {value!r}: must be one of {', '.join(map(str, legal))}.")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = getattr(value, "kind", None)
        kind: dict[str, Any] = {} if name is None else {"kind": name}
        return kind | {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _nested(name: str, value: Any) -> Any:
    """Turn one JSON value of the top level into the object that its field holds."""
    if isinstance(value, Mapping):
        part: dict[str, Any] = dict(value)  # pyright: ignore[reportUnknownArgumentType]
        if name in _KINDS:
            kind = part.pop("kind", None)
            if kind not in _KINDS[name]:
                known = ", ".join(_KINDS[name])
                raise ConfigError(f"{name}.kind = {kind!r}: known kinds are {known}. Use one of these.")
            return _build(_KINDS[name][kind], f"{name}.", {k: _tuple(v) for k, v in part.items()})
        if name in _PARTS:
            return _build(_PARTS[name], f"{name}.", {k: _tuple(v) for k, v in part.items()})
    return _tuple(value)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _build(cls: Any, prefix: str, data: Mapping[str, Any]) -> Any:
    known = [f.name for f in dataclasses.fields(cls)]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Known keys: {', '.join(known)}." if known else "There are no keys beside `kind` here."
            hint = f" Did you mean {near[0]!r}?" if near else f" {hint}"
            raise ConfigError(f"{prefix}{key}: unknown key.{hint}")
    return cls(**data)
