"""What all tests share: one thread for torch, and a small profile for Hypothesis."""

import os

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# Times say nothing on a shared machine: no deadlines. CI repeats the same examples, so that it never surprises.
settings.register_profile("local", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
