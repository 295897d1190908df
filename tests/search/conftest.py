"""Studies made by hand, for what reads them; crops of a photograph and a preset, for what trains further."""

import dataclasses

import pytest

from search.types import Cost, ExpertUse, Genotype, Latency, Measurement, Study, Trial, TrialState, to_json

RUNGS = (100, 400, 1200)


def _config(width, levels):
    return {
        "schema": 1,
        "upscale": 2,
        "in_channels": 3,
        "width": width,
        "encoder_blocks": [1] * levels,
        "bottleneck_blocks": 1,
        "decoder_blocks": [0] * levels,
        "mixer": {"kind": "large_kernel", "kernel_size": 7, "reparam": True},
        "expansion": 2.0,
        "attention": {"kind": "window", "window_size": 8, "num_heads": 2, "stages": ["mid"]},
        "experts": {"num_experts": 4, "top_k": 1, "stages": ["mid"]},
        "downsampler": "strided",
        "upsampler": "pixelshuffle",
        "frequency_split": {"kernel_size": 5},
        "refiner": {"kind": "dft", "depth": 2},
        "residual_scale": 0.1,
        "fused": False,
    }


def _latency(ms):
    return Latency(
        median_ms=ms,
        low_ms=0.98 * ms,
        high_ms=1.02 * ms,
        repeats=60,
        at="160x160",
        threads=1,
        device="cpu",
        dtype="float32",
        runtime="torch eager",
        host="A processor x2 (bench)",
        measured_at="2026-01-02T03:04:05+00:00",
    )


def _cost(latency_ms, macs_g, params_m, peak_mem_mib):
    return Cost(
        params_m=params_m,
        params_train_m=params_m,
        params_active_m=params_m,
        macs_g=macs_g,
        macs_at="640x360",
        latency=None if latency_ms is None else _latency(latency_ms),
        peak_mem_mib=peak_mem_mib,
        peak_mem_at="160x160",
    )


def _measurements(psnr_db, rungs):
    """Rise by 0.4 dB a rung up to `psnr_db`."""
    return tuple(
        Measurement(
            rung=rung,
            step=RUNGS[rung],
            psnr_db=psnr_db - 0.4 * (rungs - 1 - rung),
            ssim=psnr_db / 35,
            psnr_per_image_db=(psnr_db,),
            elapsed_s=10.0 * (rung + 1),
            loss=0.02,
        )
        for rung in range(rungs)
    )


@pytest.fixture(scope="session")
def make_trial():
    """Return a builder of trials: `make_trial(3, psnr_db=31.0, latency_ms=8.0, macs_g=2.0)` is a complete one."""

    def make(
        number,
        state=TrialState.COMPLETE,
        *,
        psnr_db=None,
        latency_ms=None,
        macs_g=None,
        params_m=0.02,
        peak_mem_mib=12.0,
        rungs=3,
        genotype=None,
        reason="",
        failure="",
    ):
        values = genotype or {"width": 8 + 2 * number, "levels": 1, "encoder_blocks.1": 1}
        legal = macs_g is not None
        return Trial(
            number=number,
            state=state,
            genotype=Genotype(values),
            key=Genotype(values).key,
            seed=4_000_000_000 + number,
            generation=0,
            config=_config(int(values["width"]), int(values["levels"])) if legal else None,
            cost=_cost(latency_ms, macs_g, params_m, peak_mem_mib) if legal else None,
            measurements=() if psnr_db is None else _measurements(psnr_db, rungs),
            reason=reason,
            failure=failure,
        )

    return make


@pytest.fixture(scope="session")
def seen_on():
    """Return a function that gives a trial these PSNRs of single photographs, and their mean."""

    def seen(trial, *psnr_db):
        last = dataclasses.replace(trial.last, psnr_db=sum(psnr_db) / len(psnr_db), psnr_per_image_db=psnr_db)
        return dataclasses.replace(trial, measurements=(*trial.measurements[:-1], last))

    return seen


@pytest.fixture(scope="session")
def unlike_study(make_trial, make_study, seen_on):
    """A front over two photographs that are 10 dB apart: 0.1 dB between members, 0.2 dB of interval for each gain.

    The baseline has 25 and 35 dB. A reference is 2 dB below the front, a stopped candidate 9 dB.
    """
    front = [
        seen_on(make_trial(n, psnr_db=31.0, latency_ms=4.0 * (n + 1), macs_g=1.0 + n), 25.9 + n / 10, 36.1 + n / 10)
        for n in range(3)
    ]
    lost = make_trial(7, TrialState.STOPPED, psnr_db=22.0, latency_ms=5.0, macs_g=1.0, rungs=1)
    reference = seen_on(make_trial(90, psnr_db=29.0, latency_ms=30.0, macs_g=4.0), 23.9, 34.1)
    record = {
        "key": "0",
        "made": {"network": "edsr", "args": {}},
        "added": False,
        "cost": to_json(reference.cost),
        "over": "",
        "measurements": [to_json(m) for m in reference.measurements],
        "reason": "",
        "failure": "",
    }
    baseline = {"psnr_db": 30.0, "ssim": 0.85, "images": ["a.png", "b.png"], "psnr_per_image_db": [25.0, 35.0]}
    facts = {"baseline": {**baseline, "host": "A processor x2 (bench)"}, "references": {"edsr": record}}
    return make_study([*front, lost], facts=facts)


@pytest.fixture(scope="session")
def make_study(tmp_path_factory):
    """Return a builder of studies in a folder of their own."""

    def make(trials=(), *, objectives=("psnr_db", "latency_ms", "macs_g"), facts=None, **spec):
        baseline = {
            "psnr_db": 30.0,
            "ssim": 0.85,
            "images": ["a.png", "b.png"],
            "psnr_per_image_db": [29.0, 31.0],
            "train_images": 8,
            "notes": ["b.png: validated on its centre"],
            "host": "A processor x2 (bench)",
            "versions": {"python": "3.11.7", "torch": "2.9.0"},
        }
        whole = {
            "name": "handmade",
            "task": {"kind": "super_resolution", "upscale": 2, "data": {"folder": "/home/somebody/photos"}},
            "space": {"width": [8, 16], "levels": [1, 2], "encoder_blocks": {"min": 1, "max": 2}},
            "budget": {
                "params_m": {"max": 1.0},
                "macs_g": {"max": 8.0, "at": [640, 360]},
                "latency_ms": {"max": 60.0, "at": [160, 160]},
                "peak_mem_mib": {},
                "threads": 1,
            },
            "objectives": list(objectives),
            "proxy": {"rungs": list(RUNGS), "keep": 0.4, "batch": 8, "patch_px": 32, "learning_rate": 0.004},
            "search": {"sampler": "auto", "trials": 48, "seed": 7, "generation": 12},
            **spec,
        }
        return Study(
            name="handmade",
            folder=tmp_path_factory.mktemp("run"),
            objectives=objectives,
            spec=whole,
            facts={"baseline": baseline} if facts is None else {"baseline": baseline, **facts},
            trials=tuple(trials),
        )

    return make


@pytest.fixture(scope="session")
def rich_study(make_trial, make_study):
    """A study with a candidate in every state.

    On the front: 4 (fastest), 1 (knee), 0 (best), and 5 by its MACs alone. 2 is dominated by 1.
    """
    state = TrialState
    two_levels = {"levels": 2, "width": 16, "encoder_blocks.2": 1, "encoder_blocks.1": 2, "zoom": 2}
    return make_study(
        [
            make_trial(0, psnr_db=31.6, latency_ms=40.0, macs_g=6.0, genotype=two_levels),
            make_trial(1, psnr_db=31.4, latency_ms=10.0, macs_g=1.2),
            make_trial(2, psnr_db=31.2, latency_ms=20.0, macs_g=2.0, genotype={"width": 12, "levels": 1, "zoom": 1.5}),
            make_trial(3, state.STOPPED, psnr_db=30.6, latency_ms=15.0, macs_g=1.5, rungs=1, reason="not promoted"),
            make_trial(4, psnr_db=30.9, latency_ms=5.0, macs_g=0.9),
            make_trial(5, psnr_db=30.7, latency_ms=12.0, macs_g=0.4),
            make_trial(6, state.INFEASIBLE, macs_g=8.109, peak_mem_mib=None, reason="macs_g 8.109 > 8"),
            make_trial(7, state.INFEASIBLE, macs_g=4.0, latency_ms=80.0, reason="latency_ms 81.6 > 60"),
            make_trial(8, state.INFEASIBLE, reason="num_heads = 5 does not divide width"),
            make_trial(9, state.DUPLICATE, macs_g=None, reason="same network as trial 1"),
            make_trial(
                10,
                state.FAILED,
                macs_g=1.0,
                latency_ms=9.0,
                reason="loss is <script>nan</script>",
                failure='File "/home/somebody/code/search/evaluation/proxy.py", line 3\nValueError: nan',
            ),
            make_trial(11, state.RUNNING, psnr_db=30.5, latency_ms=9.0, macs_g=1.0, rungs=1),
            make_trial(12, state.STOPPED, psnr_db=30.8, latency_ms=18.0, macs_g=2.5, rungs=2, reason="not promoted"),
        ]
    )


DEGRADATIONS = ("texture", "denoise", "deblur", "artifact")
BALANCED = ExpertUse(
    stage="mid",
    load=(0.25, 0.25, 0.25, 0.25),
    load_entropy=1.0,
    confidence=0.8,
    degradations=DEGRADATIONS,
    load_by_degradation=((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0)),
    information_bits=2.0,
)
HALF_DEAD = ExpertUse(stage="dec2", load=(0.5, 0.5, 0.0, 0.0), load_entropy=0.5, confidence=0.4)


@pytest.fixture(scope="session")
def expert_study(make_trial, make_study):
    """A study of a mixed task. 0 (best) has two mixtures, one without labels; 1 has one; 2 (fastest) has none."""

    def trial(number, psnr_db, latency_ms, experts):
        made = make_trial(number, psnr_db=psnr_db, latency_ms=latency_ms, macs_g=latency_ms / 10)
        *rest, last = made.measurements
        return dataclasses.replace(made, measurements=(*rest, dataclasses.replace(last, experts=experts)))

    return make_study(
        [trial(0, 31.6, 40.0, (BALANCED, HALF_DEAD)), trial(1, 31.5, 10.0, (BALANCED,)), trial(2, 30.5, 5.0, ())],
        task={"kind": "mixed", "sigma": 25.0, "blur_sigma_px": 1.6, "quality": 20},
        proxy={"rungs": [100, 400, 1200], "keep": 0.4, "batch": 8, "routing_supervision": 0.02},
    )


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> dict:
    """Small crops of a real photograph to enlarge."""
    import numpy as np
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    pixels = np.asarray(data.astronaut())
    for part, tops in (("train", (0, 100)), ("validation", (300,))):
        (folder / part).mkdir()
        for top in tops:
            Image.fromarray(pixels[top : top + 64, top : top + 64]).save(folder / part / f"{top}.png")
    data_ = {"train": str(folder / "train"), "validation": str(folder / "validation")}
    return {"kind": "super_resolution", "upscale": 2, "channels": 3, "data": data_}


@pytest.fixture(scope="session")
def write_preset():
    """Write a preset folder as a run does, of an untrained network; seed 1 draws its weights."""
    import torch
    from ruamel.yaml import YAML

    from hfir import build_model, fuse, save_weights

    def write(folder, config, task):
        folder.mkdir()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            save_weights(fuse(build_model(config)), folder / "weights.safetensors")
        card = {
            "name": "small",
            "task": task,
            "measured": {"psnr_db": 30.0, "latency_ms": 7.0, "macs_g": 0.5},
            "conditions": {"form": "deploy", "psnr": "short"},
            "provenance": {"run": "r", "trial": 3},
        }
        YAML().dump(card, folder / "preset.yaml")
        return folder

    return write
