"""The experiment: one declarative file, loaded, checked and joined into what the platform works with."""

from search.experiment.loading import Experiment, available_spaces, load_experiment

__all__ = ["Experiment", "available_spaces", "load_experiment"]
