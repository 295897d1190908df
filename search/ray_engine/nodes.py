"""Before anything is spent: do all nodes have the same code, the same photographs, and the driver's folder?"""

from __future__ import annotations

from collections.abc import Callable

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.evaluation.answers import Baseline, Evaluator
from search.evaluation.host import versions
from search.ray_engine.cluster import alive_nodes
from search.ray_engine.exchange import Exchange
from search.ray_engine.worker import look_at_node
from search.tasks.identity import refuse_other_photographs
from search.tasks.leaks import seen_from_json
from search.types import InputError


def look_at_nodes(evaluator: Evaluator, start: Callable[[], None], exchange: Exchange) -> dict[str, Baseline]:
    """Return what each node but this one makes of the data, by the node's address.

    Raises:
        InputError: If a node lacks a folder, or has other code.
    """
    here = ray.get_runtime_context().get_node_id()
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    look = ray.remote(num_cpus=0, max_retries=1)(look_at_node)
    asked = {
        node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            evaluator, start, exchange
        )
        for node in alive_nodes()
        if node != here
    }
    return {addresses[node]: _answer(addresses[node], answer) for node, answer in asked.items()}


def require_alike(nodes: dict[str, Baseline], baseline: Baseline) -> None:
    """Make sure that all nodes have what the driver has: else the same job would have another answer on each.

    Raises:
        InputError: If one has not.
    """
    for node, seen in nodes.items():
        photographs = seen_from_json(seen.photographs)
        if photographs is not None:
            remedy = "share the folders between the nodes"
            refuse_other_photographs(baseline.photographs, photographs, f"node {node}", remedy)
        ours = versions()
        others = [f"{name} {seen.versions.get(name)}, not {ours[name]}" for name in ours]
        differing = [text for text, name in zip(others, ours, strict=True) if seen.versions.get(name) != ours[name]]
        if differing:
            raise InputError(
                f"node {node} has {'; '.join(differing)}.\n"
                "  Install the driver's versions there: figures depend on them."
            )


def _answer(node: str, answer: ray.ObjectRef) -> Baseline:
    try:
        seen = ray.get(answer)
    except RayError as error:
        telling = str(error).strip().splitlines()[-1]
        raise InputError(
            f"node {node} cannot look at the data ({telling}).\n  Install the driver's version of hfir-search there."
        ) from error
    if isinstance(seen, InputError):
        raise seen
    return seen
