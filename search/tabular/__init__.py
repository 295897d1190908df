"""Tables that answer a trial: what networks reach was found out once, and is looked up instead of trained.

With one, a search of hundreds of candidates takes seconds, so samplers and schedulers can be compared over many seeds.
`load_table` reads one, `TableProblem` and `TableEvaluator` stand in for an experiment and its trainings, so that the
shipped `SearchRun` is what is measured, `bench` runs samplers over them.
"""

from search.tabular.benchmark import Course, bench
from search.tabular.catalogue import TABLES, load_table
from search.tabular.memory import MemoryStore
from search.tabular.problem import TableEvaluator, TableProblem
from search.tabular.table import Table

__all__ = ["TABLES", "Course", "MemoryStore", "Table", "TableEvaluator", "TableProblem", "bench", "load_table"]
