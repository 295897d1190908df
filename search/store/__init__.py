"""A run on disk: Optuna's study as the single source of truth, written by the driver alone.

Every figure of a trial stands in its attributes, so optuna-dashboard opens a run as it is and any table or figure can
be drawn again from the store. Beside the journal lie files that are derived from it, and checkpoints.
"""

from search.store.holding import LOCK, hold, is_held
from search.store.index import TrialIndex
from search.store.journal import JOURNAL, repair_journal
from search.store.places import POINTER
from search.store.records import PROFILE, REPLICATES, SETBACKS
from search.store.run import RunStore, has_records, note_fact, opened, opened_storage, read_study, times_of

__all__ = [
    "JOURNAL",
    "LOCK",
    "POINTER",
    "PROFILE",
    "REPLICATES",
    "SETBACKS",
    "RunStore",
    "TrialIndex",
    "has_records",
    "hold",
    "is_held",
    "note_fact",
    "opened",
    "opened_storage",
    "read_study",
    "repair_journal",
    "times_of",
]
