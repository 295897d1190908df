"""Build a reference network and try it on a small image: what is wrong with it is said before anything is spent."""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from search.references.networks import BUILT_IN
from search.references.plan import ReferencePlan, module_file
from search.types import InputError, SpecError

PROBE_PX = 16
"""Side of the image that a network is tried on."""
TOLERANCE = 1e-3
"""By how much the deploy form may differ from the training form, on images of the scale 0 .. 1."""
DEPLOY_METHODS = ("fuse", "deploy")
"""A module that has one of these is deployed by it: it returns the deploy form, or turns the module into it."""


def build(plan: ReferencePlan, *, in_channels: int, upscale: int) -> nn.Module:
    """Build a reference network in training form and try it; weights come from torch's global generator.

    Args:
        plan: Which one.
        in_channels: Of the image, 1 or 3.
        upscale: Factor between input and output side; 1 for restoration.

    Raises:
        SpecError: If it cannot be had, or does not restore images; the message leads to where it is named.
    """
    try:
        with _importing_from(plan.folder):
            if plan.network:
                network = _called(plan.network, BUILT_IN[plan.network], (in_channels, upscale), plan.args)
            else:
                network = _imported(plan.module, plan.args, in_channels, upscale, plan.folder)
            _try(network, in_channels, upscale)
    except InputError as error:
        problem, _, remedy = str(error).partition("\n  ")
        raise SpecError(f"{plan.name}: {problem}", remedy=remedy, source=plan.source, line=plan.line) from error
    return network


def load_module(path: str, args: Mapping[str, Any], *, in_channels: int, upscale: int, folder: str = "") -> nn.Module:
    """Call a factory that is named by its import path, and try what it returns on a small image.

    The factory is called with `args`; with `in_channels` and `upscale` as well where it has parameters of these names
    and `args` does not say them.

    Args:
        path: `package.module:Factory`; a class, or a function that returns a module.
        args: Keyword arguments.
        in_channels: Of the image, 1 or 3.
        upscale: Factor between input and output side; 1 for restoration.
        folder: Where modules are looked for before installed packages; empty for these alone.

    Raises:
        InputError: If the module or the factory is not there, the factory raises or returns something else, or the
            network does not restore an image of 16×16 pixels: raises, returns another shape, or what is not finite.
    """
    with _importing_from(folder):
        network = _imported(path, args, in_channels, upscale, folder)
        _try(network, in_channels, upscale)
    return network


def deploy_form(network: nn.Module) -> nn.Module:
    """Return the form that is measured and shipped: by `fuse()` or `deploy()` where there is one, else a copy; eval.

    Raises:
        InputError: If that method raises.
    """
    network = copy.deepcopy(network).eval()
    method = next((name for name in DEPLOY_METHODS if callable(getattr(network, name, None))), None)
    if method is None:
        return network
    try:
        deployed = getattr(network, method)()
    except Exception as error:
        raise InputError(f"its {method}() raises {_said(error)}.\n  It is called without arguments.") from error
    return deployed.eval() if isinstance(deployed, nn.Module) else network.eval()


def _imported(path: str, args: Mapping[str, Any], in_channels: int, upscale: int, folder: str) -> nn.Module:
    factory = _factory(path, folder)
    takes, known = _parameters(factory), {"in_channels": in_channels, "upscale": upscale}
    given = {name: value for name, value in known.items() if name in takes and name not in args}
    return _called(path, factory, (), {**given, **args})


def _called(name: str, factory: Callable[..., Any], positional: tuple[Any, ...], named: Mapping[str, Any]) -> nn.Module:
    try:
        network = factory(*positional, **named)
    except Exception as error:
        takes = ", ".join(_parameters(factory)) or "no arguments by name"
        raise InputError(f"{name} raises {_said(error)}.\n  It takes {takes}.") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} returns {type(network).__name__}.\n  A factory returns a torch.nn.Module.")
    return network


def _factory(path: str, folder: str) -> Callable[..., Any]:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise InputError(f"{path} is no import path.\n  Write package.module:Factory, e.g. my_net:MyNet.")
    value: Any = _module(module_name, folder)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise InputError(f"{module_name} has no {attribute}.\n  It has {_offered(value) or 'nothing to call'}.")
        value = getattr(value, part)
    if not callable(value):
        raise InputError(
            f"{path} is of type {type(value).__name__}, which cannot be called.\n"
            "  Name a class, or a function that returns a module."
        )
    return value


def _offered(module: Any) -> str:
    """Return what a module defines and can be called, names that it imported aside."""
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
    return ", ".join(n for n, v in own.items() if callable(v) and not n.startswith("_"))


def _module(name: str, folder: str) -> ModuleType:
    """Import a module; one of the folder must not be mistaken for another of the same name."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            where = f"{folder} and among installed packages" if folder else "installed packages"
            raise InputError(
                f"there is no module {error.name}.\n  It is looked for in {where}. Put it there, or correct the name."
            ) from error
        _cannot_import(name, error)
    except Exception as error:
        _cannot_import(name, error)
    own = module_file(name, folder)
    if own is not None and (module.__file__ is None or not own.samefile(module.__file__)):
        raise InputError(
            f"the name {name} is taken by {module.__file__ or 'a part of Python'}, so {own} cannot be imported.\n"
            "  Rename your file."
        )
    return module


def _cannot_import(name: str, error: Exception) -> NoReturn:
    raise InputError(
        f"importing {name} raises {_said(error)}.\n  Mend the module, or install what it needs."
    ) from error


def _try(network: nn.Module, in_channels: int, upscale: int) -> None:
    """Restore a small image by the training form, in eval mode, and by the deploy form; leave the network as it was."""
    image = torch.rand(1, in_channels, PROBE_PX, PROBE_PX, generator=torch.Generator().manual_seed(0))
    training = network.training
    with torch.inference_mode():
        trained = _probed(network.eval(), image, upscale)
        deployed = _probed(deploy_form(network), image, upscale)
    network.train(training)
    difference = float((trained - deployed).abs().max())
    if difference > TOLERANCE:
        raise InputError(
            f"its deploy form differs from the network by up to {difference:.2g} on an image of the scale 0 .. 1.\n"
            f"  fuse() or deploy() may change the output by {TOLERANCE:g} at most."
        )


def _probed(network: nn.Module, image: Tensor, upscale: int) -> Tensor:
    shape = list(image.shape)
    try:
        output = network(image)
    except Exception as error:
        raise InputError(
            f"it raises {_said(error)} on an input of {shape}.\n  It must take any image [b, c, h, w] of this task."
        ) from error
    if not isinstance(output, Tensor):
        raise InputError(f"it returns {type(output).__name__} where an image is expected.\n  Return one tensor.")
    expected = [*shape[:2], shape[2] * upscale, shape[3] * upscale]
    if list(output.shape) != expected:
        raise InputError(
            f"for an input of {shape} it returns {list(output.shape)}, expected is {expected}.\n"
            f"  The task's scale is {upscale}: check the arguments."
        )
    if not torch.isfinite(output).all():
        raise InputError("its output on a random image is not finite.\n  Check how it is initialised.")
    return output


@contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    """Look for modules in a folder first; only meanwhile, for processes that are started inherit the path."""
    if not folder:
        yield
        return
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


def _parameters(factory: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some that are written in C do not tell
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.kind in named]


def _said(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
