"""The search: propose, measure, hold against the budget, train by rungs, record, tell; until the trials are spent.

The run is a function of its records: `Director` looks at what the store holds and says what is missing, `SearchRun`
has it done. So a run that was stopped anywhere, by whatever, goes on from there, whoever carries out the steps.
"""

from search.study.director import Director
from search.study.moving import foreign_trials, refuse_other_baseline
from search.study.paths import checkpoint_path, replicate_path, scalars_path
from search.study.problem import Problem
from search.study.profile import Profile
from search.study.references import References, added_plans
from search.study.rules import Rules, rules_of, time_limit
from search.study.run import Onlooker, Progress, SearchRun
from search.study.steps import Job, Kind, Step
from search.study.warm import WarmStart, warm_start

__all__ = [
    "Director",
    "Job",
    "Kind",
    "Onlooker",
    "Problem",
    "Profile",
    "Progress",
    "References",
    "Rules",
    "SearchRun",
    "Step",
    "WarmStart",
    "added_plans",
    "checkpoint_path",
    "foreign_trials",
    "refuse_other_baseline",
    "replicate_path",
    "rules_of",
    "scalars_path",
    "time_limit",
    "warm_start",
]
