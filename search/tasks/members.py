"""The members of a mixed task: which expert should undo each, and which options it takes. Loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SKILLS = ("texture", "denoise", "deblur", "artifact")
"""What experts are for, in the order of `hfir.config.EXPERT_NAMES`."""


class Member(NamedTuple):
    """A degradation that a mixture may hold."""

    skill: str
    """Of `SKILLS`: the expert that should undo it."""
    options: tuple[str, ...] = ()
    """Of the mixed task, those that are its own."""


MEMBERS: Mapping[str, Member] = {
    "texture": Member("texture"),
    "denoise": Member("denoise", ("sigma",)),
    "deblur": Member("deblur", ("blur_sigma_px",)),
    "artifact": Member("artifact", ("quality",)),
    "poisson": Member("denoise", ("peak",)),
    "motion_blur": Member("deblur", ("length_px", "angle_deg")),
    "defocus": Member("deblur", ("radius_px",)),
}
"""Every member by its name in an experiment file, which is also the name of its label."""

DEFAULT_MEMBERS = ("texture", "denoise", "deblur", "artifact")
"""The members where a file names none. Old runs are known by them: neither names nor order may change."""


def options_of(members: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options that a mixture of these members takes, in their order."""
    return tuple(option for name in members for option in MEMBERS[name].options)
