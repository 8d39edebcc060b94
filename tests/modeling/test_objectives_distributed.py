"""Two and four processes on shards of a batch against one process with all of it.

The processes load the objectives from their files, because importing the package takes each of them seconds.
Axes: N samples, K inputs, D latent dimensions, W processes.
"""

import importlib
import math
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

NUM_SAMPLES, NUM_INPUTS = 24, 8
SHARDS = {
    2: {"equal": [12, 12], "unequal": [17, 7]},
    4: {"equal": [6, 6, 6, 6], "unequal": [11, 0, 12, 1]},
}
SETTINGS = [("equal", torch.float64), ("unequal", torch.float64), ("unequal", torch.float32)]


class Case(NamedTuple):
    objective: str
    num_dims: int  # 12: the D x D form; 40: the N x N form
    settings: dict[str, Any]

    def __str__(self):
        return "-".join([self.objective, str(self.num_dims), *(str(v) for v in self.settings.values())])


OBJECTIVE_NAMES = ("bt", "mbt", "vicreg", "infonce", "tcr", "hsic", "wmse", "mmcr", "sigreg")
CPC_AXES = (4, 2, 5)  # frames, their latent and one prediction, dimensions
NORMALIZED = [{"latent_normalization": name} for name in ("none", "layer", "group", "whitening")]
CASES = [
    *(Case(name, 12, {}) for name in OBJECTIVE_NAMES),
    *(Case(name, 40, {}) for name in OBJECTIVE_NAMES if name != "wmse"),
    *(Case("bt", 40, settings) for settings in NORMALIZED),
    Case("bt", 12, {"latent_normalization": "whitening"}),
    Case("bt", 40, {"latent_normalization": "l2", "latent_normalization_strength": 0.5}),
    Case("infonce", 40, {"latent_normalization": "whitening"}),
    Case("cpc", math.prod(CPC_AXES), {}),
]


class Result(NamedTuple):
    """The three losses, the gradient of the projector's weights and that of the latents of both views."""

    losses: Tensor
    weight_gradient: Tensor
    latent_gradient: Tensor


def load(name: str) -> ModuleType:
    package = sys.modules.setdefault("files_of_a_process", ModuleType("files_of_a_process"))
    package.__path__ = [str(Path(__file__).parents[2] / "modeling_mbt")]
    return importlib.import_module(f"files_of_a_process.{name}")


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Views sorted by their mean, as data sorted by speaker are, so that shards differ in distribution."""
    generator = torch.Generator().manual_seed(0)
    view_a, noise = torch.randn(2, NUM_SAMPLES, NUM_INPUTS, generator=generator, dtype=torch.float64)
    view_a = view_a + torch.linspace(-3, 3, NUM_SAMPLES, dtype=torch.float64)[:, None]
    return view_a.to(dtype), (view_a + noise).to(dtype)


def projector(num_dims: int, dtype: torch.dtype) -> torch.nn.Linear:
    layer = torch.nn.Linear(NUM_INPUTS, num_dims, dtype=dtype)
    weight = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.nn.init.zeros_(layer.bias)
    layer.weight.data = (weight / math.sqrt(NUM_INPUTS)).to(dtype)
    return layer


def run(case: Case, view_a: Tensor, view_b: Tensor, projector: torch.nn.Linear) -> Result:
    z = projector(torch.cat([view_a, view_b])).sin()  # sin: N x D latents of more than K ranks
    z.retain_grad()
    kwargs = {"seed": 0, "num_directions": 64} if case.objective == "sigreg" else {}
    views = z.chunk(2)
    if case.objective == "cpc":  # on frames, where some clips are a frame shorter
        length = 4 - (torch.cat([view_a, view_b])[:, 0] > 1).long()
        exist = (torch.arange(4) < length[:, None])[..., None, None].expand(-1, -1, 2, -1)
        views = torch.cat([z.unflatten(1, CPC_AXES), exist.to(z)], dim=-1).chunk(2)
    output = load("named_objectives_mbt").compute_objective(
        case.objective, *views, objective_kwargs=kwargs, **case.settings
    )
    output.loss.backward()
    assert projector.weight.grad is not None
    assert z.grad is not None
    return Result(torch.stack(list(output)).detach(), projector.weight.grad, z.grad)


def run_process(rank: int, num_processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    objectives = load("objectives_mbt")
    dist.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=num_processes, timeout=timedelta(minutes=5)
    )
    results = {}
    for sharding, dtype in SETTINGS:
        view_a, view_b = (view.split(SHARDS[num_processes][sharding])[rank] for view in batch(dtype))
        for case in CASES:
            result = run(case, view_a, view_b, projector(case.num_dims, dtype))
            dist.all_reduce(result.weight_gradient)  # as DistributedDataParallel, which takes seconds to import
            results[sharding, dtype, str(case)] = result._replace(
                weight_gradient=result.weight_gradient / num_processes
            )
    view_a, view_b = (view.split(SHARDS[num_processes]["unequal"])[rank] for view in batch(torch.float64))
    results["correlation"] = objectives.cross_correlation(view_a, view_b)
    results["refusal"] = refusal_of_one_sample(objectives, view_a[: rank == 0])
    for name in ("directions", "next_directions"):
        results[name] = load("alternatives_mbt")._directions(view_a, 4, seed=None)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def refusal_of_one_sample(objectives, view: Tensor) -> str:
    try:
        objectives.barlow_twins_loss(view, view)
    except ValueError as error:
        return str(error)
    return ""


@pytest.fixture(
    scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)], ids=lambda number: f"{number} processes"
)
def processes(request, tmp_path_factory) -> list[dict]:
    """What each of the W processes found."""
    folder = tmp_path_factory.mktemp("processes")
    spawn(run_process, (request.param, str(folder)), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(request.param)]


@pytest.mark.parametrize(("sharding", "dtype"), SETTINGS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_shards_give_the_value_and_gradient_of_the_whole_batch(processes, case, sharding, dtype):
    expected = run(case, *batch(dtype), projector(case.num_dims, dtype))
    shards = [process[sharding, dtype, str(case)] for process in processes]
    single = dtype == torch.float32
    decomposed = case.objective == "mmcr" or case.settings.get("latent_normalization") == "whitening"
    tolerance = (1e-5 if decomposed else 1e-6) if single else 1e-10
    for shard in shards:
        assert_close(shard.losses, expected.losses, 1e-6 if single else 1e-10)
        assert_close(shard.weight_gradient, expected.weight_gradient, tolerance)
    latent_gradients = [torch.cat(views) for views in zip(*(s.latent_gradient.chunk(2) for s in shards), strict=True)]
    assert_close(torch.cat(latent_gradients) / len(processes), expected.latent_gradient, tolerance)


def assert_close(result: Tensor, expected: Tensor, tolerance: float) -> None:
    assert (result - expected).norm() <= tolerance * expected.norm()


def test_every_process_has_the_correlation_matrix_of_the_whole_batch(processes):
    expected = load("objectives_mbt").cross_correlation(*batch(torch.float64))
    for process in processes:
        torch.testing.assert_close(process["correlation"], expected)


def test_every_process_refuses_a_batch_of_one_sample_in_all(processes):
    assert all("needs at least 2, over all processes, but was given 1" in process["refusal"] for process in processes)


def test_unseeded_directions_are_new_but_the_same_on_every_process(processes):
    for process in processes:
        torch.testing.assert_close(process["directions"], processes[0]["directions"], rtol=0, atol=0)
        assert (process["directions"] - process["next_directions"]).norm(dim=0).min() > 0.1
