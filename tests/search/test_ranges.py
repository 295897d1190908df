"""What an experiment file allows, the components accept: every bound of every number of a task and of a space."""

import math
from pathlib import Path

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError

from hfir.config import HFIRConfig
from search.experiment import load_experiment
from search.experiment.sections import TASK_OPTIONS, ExperimentFile, ProxySection, Section, TaskSection
from search.experiment.table import DIMENSIONS
from search.experiment.values import Number, OneOf, Whole
from search.tasks.degradations import DEGRADATIONS, Denoise
from search.tasks.members import MEMBERS
from search.tasks.pairs import TaskData, TrainPhoto
from search.tasks.patches import PatchSampler
from search.tasks.ranges import RANGES
from search.types import InputError

OPTIONS = [(kind, option) for kind, options in TASK_OPTIONS.items() for option in options if option != "members"]


def bounds(section: type[Section], name: str) -> tuple[float, float]:
    """Return the lowest and the highest number that a field allows; both must be given and be included."""
    rules = section.model_fields[name].metadata
    assert not any(isinstance(rule, Gt | Lt) for rule in rules), f"{name}: an open bound has no lowest number"
    (low,) = (rule.ge for rule in rules if isinstance(rule, Ge))
    (high,) = (rule.le for rule in rules if isinstance(rule, Le))
    return low, high


def section_with(kind: str, option: str, value: float) -> TaskSection:
    given: dict[str, object] = {"kind": kind, option: value}
    owner = next((name for name, member in MEMBERS.items() if option in member.options), "denoise")
    if kind == "mixed":
        given["members"] = (owner, "texture")
    return TaskSection(**given)


@pytest.mark.parametrize(("kind", "option"), OPTIONS)
def test_a_degradation_accepts_what_a_file_allows_and_refuses_what_it_refuses(kind: str, option: str):
    make = DEGRADATIONS[kind]
    for bound in bounds(TaskSection, option):
        options = section_with(kind, option, bound).options()
        assert options[option] == bound
        make(**options)
    whole = option in ("upscale", "quality")
    low, high = bounds(TaskSection, option)
    outside = (low - 1, high + 1) if whole else (math.nextafter(low, -math.inf), math.nextafter(high, math.inf))
    for value in outside:
        with pytest.raises(ValidationError):
            section_with(kind, option, value)
        with pytest.raises(InputError, match=f"{option} = .* is out of range"):
            make(**(options | {option: value}))


def test_every_number_of_a_task_has_its_range_in_one_place():
    numbers = [name for name in TaskSection.model_fields if any(isinstance(rule, Ge) for rule in metadata(name))]
    assert set(numbers) == set(RANGES)
    for name in numbers:
        assert bounds(TaskSection, name) == RANGES[name]
        assert str(RANGES[name]) in str(TaskSection.model_fields[name].description) or name == "upscale"


def metadata(name: str) -> list[object]:
    return TaskSection.model_fields[name].metadata


def ends(name: str) -> list[object]:
    values = DIMENSIONS[name].values
    if isinstance(values, Whole | Number):
        return [values.low, values.high]
    return [v for v in values.members if not isinstance(v, str)] if isinstance(values, OneOf) else []


NEEDED = {
    "mixer": "large_kernel",
    "attention": "window",
    "num_experts": 4,
    "levels": 2,
    "frequency_split": "true",
    "refiner": "dft",
}
"""Values under which each dimension counts."""


@pytest.mark.parametrize("name", [name for name in DIMENSIONS if ends(name)])
def test_a_network_accepts_the_ends_of_every_dimension(name: str, tmp_path: Path):
    for value in ends(name):
        space = NEEDED | {"width": 64, name: str(value).lower() if isinstance(value, bool) else value}
        unused = {d.name for d in DIMENSIONS.values() if d.needs and not d.needs.holds(plain(space[d.needs.parent]))}
        lines = [f"  {key}: {item}" for key, item in space.items() if key not in unused]
        task = "{kind: mixed}" if name == "expert_condition" else "{kind: super_resolution}"
        path = tmp_path / "x.yaml"
        path.write_text("\n".join([f"name: x\ntask: {task}\nspace:", *lines, ""]))
        experiment = load_experiment(str(path))
        assert isinstance(experiment.decode(experiment.space.sample(0)), HFIRConfig)


def plain(value: object) -> object:
    return {"true": True, "false": False}.get(str(value), value)


@pytest.mark.parametrize("end", [0, 1])
def test_patches_are_drawn_at_the_bounds_of_the_proxy(end: int):
    side = int(bounds(ProxySection, "patch_px")[end])
    pixels = np.zeros((side, side, 1), dtype=np.uint8)
    photo = TrainPhoto("black", pixels, pixels, "digest", None)
    data = TaskData(degradation=Denoise(25), upscale=1, channels=1, train=(photo,), validation=())
    batch, seed = (int(bounds(s, name)[end]) for s, name in ((ProxySection, "batch"), (search_section(), "seed")))
    sampler = PatchSampler(data, side, batch, seed=seed)
    if end == 0:
        assert sampler.batch(0).degraded.shape[0] == batch


def search_section() -> type[Section]:
    annotation = ExperimentFile.model_fields["search"].annotation
    assert isinstance(annotation, type)
    assert issubclass(annotation, Section)
    return annotation
