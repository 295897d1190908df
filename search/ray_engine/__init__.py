"""Ray Tune as the engine: the `Director` decides, Tune carries out, on one machine or on a cluster.

Tune's own interfaces are used and nothing beside them: a `Searcher` hands out what is to be trained, a
`TrialScheduler` holds each trial at its rung and lets it go on when it is promoted, a `Callback` fetches checkpoints.
A rung is one iteration of Tune, kept as one of Tune's checkpoints. The run's record is written by the driver alone, and
is all that resuming reads. Imported only where an experiment asks for it: Ray is slow to import.
"""

from search.ray_engine.run import RayRun, RaySettings

__all__ = ["RayRun", "RaySettings"]
