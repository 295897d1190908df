"""The experiment: one declarative file, loaded, checked and joined into what the platform works with."""

from search.experiment.encode import encode
from search.experiment.enqueue import with_enqueued
from search.experiment.loading import Experiment, available_spaces, load_experiment

__all__ = ["Experiment", "available_spaces", "encode", "load_experiment", "with_enqueued"]
