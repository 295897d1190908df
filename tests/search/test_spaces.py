"""The experiment files that ship with the package: each loads, and its samples are networks or say why not."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hfir import ConfigError, HFIRConfig, slots
from search.experiment import available_spaces, load_experiment
from search.experiment.loading import spaces_folder
from search.experiment.schema import json_schema
from search.experiment.sections import TASK_OPTIONS, ExecutionSection, ProxySection, SearchSection, TaskSection
from search.experiment.table import DIMENSIONS
from search.experiment.yaml_lines import read_document
from search.types import Genotype

SPACES = available_spaces()
each_space = pytest.mark.parametrize("name", SPACES)


def file(name):
    return spaces_folder() / f"{name}.yaml"


@each_space
def test_a_space_says_first_which_schema_it_follows_and_is_named_as_its_file(name):
    first, second = file(name).read_text(encoding="utf-8").splitlines()[:2]
    assert first == "# yaml-language-server: $schema=schema.json"
    assert second.startswith("# ")
    assert load_experiment(name).name == name


@each_space
def test_a_space_follows_the_schema(name):
    Draft202012Validator(json_schema()).validate(read_document(file(name)).data)


@each_space
def test_fifty_samples_are_networks_or_have_a_reason_not_to_be(name):
    experiment = load_experiment(name)
    points = [experiment.space.sample(seed) for seed in range(50)]
    assert all(experiment.space.contains(point) for point in points)
    found = [decoded(experiment, point) for point in points]
    reasons = [reason for reason in found if isinstance(reason, ConfigError)]
    networks = [network for network in found if isinstance(network, HFIRConfig)]
    assert all(len(str(reason)) > 40 for reason in reasons), "a reason is a sentence"
    assert len(networks) >= 45, "a space that is mostly illegal wastes its samples"
    assert {n.upscale for n in networks} == {experiment.task.scale}
    assert {n.in_channels for n in networks} == {experiment.task.channels}


def decoded(experiment, point):
    try:
        return experiment.decode(point)
    except ConfigError as error:
        return error


@each_space
def test_every_searched_value_leads_to_a_network(name):
    """Neighbours that differ in one dimension decode to unlike networks: nothing is searched that changes nothing.

    But attention after blocks that are not there; so the network has blocks everywhere.
    """
    experiment = load_experiment(name)
    point = next(p for p in map(experiment.space.sample, itertools.count()) if is_full(experiment.space, p))
    network = experiment.decode(point)
    for dimension in experiment.space.active(point.values):
        for other in dimension.choices:
            values = {**defaults(experiment), **point.values, dimension.name: other}
            same = decoded(experiment, experiment.space.canonical(values)) == network
            assert same == (other == point[dimension.name]), f"{dimension.name} = {other} changes nothing"


def is_full(space, point):
    blocks = [point[p.name] for p in space.active(point.values) if "_blocks" in p.name and any(p.choices)]
    return len(point.values) > 12 and all(blocks)


def defaults(experiment):
    return {parameter.name: parameter.choices[0] for parameter in experiment.space.parameters}


@pytest.mark.parametrize("dimension", sorted(slots.ALL))
def test_the_words_of_a_dimension_are_the_names_in_its_slot(dimension):
    words = set(DIMENSIONS[dimension].values.schema["enum"])
    assert words - {"none"} == set(slots.ALL[dimension])


def test_the_size_of_smoke_is_the_number_of_its_points():
    space = load_experiment("smoke").space
    points = list(space.enumerate())
    # levels 1: widths 2, encoder 2, bottleneck 2, mixers 1 + 2 kernels, experts 2, split 2 -> 96;
    # levels 2: one more encoder stage of 2 choices -> 192.
    assert space.size == len(points) == len({point.key for point in points}) == 96 + 192


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_point_of_another_seed_is_a_point_of_the_space(data):
    space = load_experiment("smoke").space
    values = {p.name: data.draw(st.sampled_from(p.choices), p.name) for p in space.parameters}
    point = space.canonical(values)
    assert space.contains(point)
    assert point == Genotype({n: v for n, v in values.items() if n in point.values})


def test_the_schema_on_disk_is_the_one_that_the_code_makes():
    on_disk = json.loads((spaces_folder() / "schema.json").read_text(encoding="utf-8"))
    assert on_disk == json_schema(), "spaces/schema.json is out of date: run `just schema`"


def test_the_readme_tells_every_dimension_as_the_table_has_it():
    text = (spaces_folder() / "README.md").read_text(encoding="utf-8")
    for dimension in DIMENSIONS.values():
        default = json.dumps(dimension.default).strip('"')
        rule = dimension.rule if len(dimension.rule) < 80 else "stages joined by `+`, see below"
        needs = "" if dimension.needs is None else f"{dimension.needs.parent} is {dimension.needs.text}"
        needs = "the network has that level" if dimension.per_level else needs
        when = "" if dimension.off is None else "yes"
        row = f"| `{dimension.name}` | {dimension.about} | {rule} | {default} | {needs} | {when} |"
        assert row in text, f"spaces/README.md lacks the line\n{row}"


@pytest.mark.parametrize("section", [ProxySection, SearchSection, ExecutionSection])
def test_the_readme_tells_every_key_of_a_section_as_the_code_has_it(section):
    text = (spaces_folder() / "README.md").read_text(encoding="utf-8")
    for key, field in section.model_fields.items():
        about = (field.description or "").replace("|", "\\|")
        row = f"| `{key}` | {about} | {default_in_words(key, field.default)} |"
        assert row in text, f"spaces/README.md lacks the line\n{row}"


def default_in_words(key, value):
    if value is None:
        return "auto" if key in ("workers", "timeout_s") else ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("kind", sorted(set(TASK_OPTIONS) - {"mixed"}))
def test_the_readme_tells_the_defaults_of_a_tasks_options(kind):
    text = (spaces_folder() / "README.md").read_text(encoding="utf-8")
    [row] = [line for line in text.splitlines() if line.startswith(f"| `{kind}` |")]
    for option, value in TaskSection(kind=kind).options().items():
        assert f"`{option}` ({value:g})" in row


def test_the_readme_names_every_space():
    text = (spaces_folder() / "README.md").read_text(encoding="utf-8")
    assert [name for name in SPACES if f"`{name}.yaml`" not in text] == []


def test_no_space_names_a_folder_of_one_machine():
    for name in SPACES:
        assert load_experiment(name).task.data.folder == "embedded"
    assert not any(str(Path.home()) in file(name).read_text(encoding="utf-8") for name in SPACES)
