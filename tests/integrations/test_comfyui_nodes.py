"""The nodes for ComfyUI, against a stand-in of the modules that they take things from."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from support.comfyui import SIGMAS, T, calc_cond_batch, host
from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, count_rows, matched_cfg
from zigzag.adapters.k_diffusion import sampler

HOME = Path(__file__).parents[2] / "integrations/comfyui"


class KSAMPLER:
    """What ComfyUI wraps a sampler's function in."""

    def __init__(self, sampler_function: Any) -> None:
        self.sampler_function = sampler_function


def sample_euler(
    model: Any, x: Any, sigmas: Any, extra_args: Any = None, callback: Any = None, disable: Any = None
) -> Any:
    return x + 1


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`comfy.samplers` and `comfy.k_diffusion.sampling`."""
    names = ("comfy", "comfy.samplers", "comfy.k_diffusion", "comfy.k_diffusion.sampling")
    made = {name: ModuleType(name) for name in names}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    made["comfy.k_diffusion"].sampling = made["comfy.k_diffusion.sampling"]
    made["comfy.k_diffusion.sampling"].sample_euler = sample_euler
    samplers = made["comfy.samplers"]
    samplers.KSAMPLER, samplers.calc_cond_batch = KSAMPLER, calc_cond_batch
    samplers.KSampler = SimpleNamespace(SAMPLERS=["euler"])
    return SimpleNamespace(samplers=samplers, sampling=made["comfy.k_diffusion.sampling"])


@pytest.fixture
def package(comfy: SimpleNamespace) -> Iterator[ModuleType]:
    yield load()
    forget()


def load() -> ModuleType:
    """As ComfyUI loads a folder of custom nodes."""
    forget()
    spec = importlib.util.spec_from_file_location("zigzag_nodes", HOME / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["zigzag_nodes"] = module
    spec.loader.exec_module(module)
    return module


def forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "zigzag_nodes"]:
        del sys.modules[name]


def defaults(package: ModuleType, **changed: Any) -> dict[str, Any]:
    """The widgets of the sampler node as they are when it is put down."""
    found = {}
    for name, (kind, *options) in package.NODE_CLASS_MAPPINGS["ZigzagSampler"].INPUT_TYPES()["required"].items():
        found[name] = kind[0] if isinstance(kind, list) else options[0]["default"]
    return found | changed


def made(package: ModuleType, **changed: Any) -> Any:
    (found,) = package.NODE_CLASS_MAPPINGS["ZigzagSampler"]().get_sampler(**defaults(package, **changed))
    return found


def run(at: SimpleNamespace, function: Any, sigmas: Any = SIGMAS) -> torch.Tensor:
    return function(at.model, at.x, sigmas, extra_args=at.extra, callback=None, disable=True)


@pytest.mark.parametrize(
    ("widgets", "method", "options"),
    [
        ({"warmup": 2, "strength": 0.5, "steps": 4}, Z2Sampling(warmup=2, steps=4, strength=0.5), {}),
        ({"method": "z", "steps": 3, "rounds": 2, "span": 2, "refine": 1}, ZSampling(3, 2, 2, 1), {}),
        ({"method": "z", "rescale": False, "weak": 1.5}, ZSampling(), {"rescale": False, "weak": 1.5}),
        ({"method": "implicit z", "strength": 0.5, "eta": 0.5}, ImplicitZ(strength=0.5), {"eta": 0.5}),
        ({"method": "end to end", "refine": 1}, EndToEnd(refine=1), {}),
        ({"method": "resampling", "rounds": 2, "steps": 0}, Resampling(steps=0, rounds=2), {}),
        ({"method": "standard", "eta": 1.0}, Standard(), {"eta": 1.0}),
    ],
)
def test_the_widgets_say_what_the_sampler_is(package: ModuleType, widgets: Any, method: Any, options: Any) -> None:
    at = host("v")
    own = made(package, **widgets).sampler_function
    want = sampler(method, calc_cond_batch=calc_cond_batch, **options)
    assert own.method == method
    assert torch.equal(run(at, own), run(at, want))


def test_each_solver_of_the_list_makes_its_steps(package: ModuleType) -> None:
    at, found = host("v"), []
    for name in sys.modules["zigzag_nodes.nodes"].SOLVERS:
        found.append(run(at, made(package, method="z", solver=name, steps=2).sampler_function))
    assert all(not torch.equal(a, b) for k, a in enumerate(found) for b in found[:k])


def test_standard_is_the_hosts_euler_and_is_reported_so(package: ModuleType) -> None:
    own = made(package, method="standard")
    at = host("v")
    assert torch.equal(run(at, own.sampler_function, SIGMAS.flip(0)), at.x + 1)
    assert "Euler" in package.NODE_CLASS_MAPPINGS["ZigzagReport"]().report(own, None)["result"][1]


def test_the_report_tells_rows_and_the_effective_scale(package: ModuleType) -> None:
    at, report = host("const"), package.NODE_CLASS_MAPPINGS["ZigzagReport"]()
    at.network.apply_model = lambda x, sigma, c_crossattn, transformer_options: (
        x - (sigma * c_crossattn)[:, None, None, None]
    )
    own, latent = made(package, warmup=1), object()
    assert "not run yet" in report.report(own, latent)["ui"]["text"][0]
    run(at, own.sampler_function, at.sigmas)
    found = report.report(own, latent)
    assert found["result"][0] is latent and found["ui"]["text"] == [found["result"][1]]
    text = found["result"][1]
    solver_scale = 4 + 4 * (T - 1) / T
    assert f"{count_rows(Z2Sampling(warmup=1), T, 4.0)} rows a sample on {T} steps" in text
    assert f"effective scale: {solver_scale:.4g}, cfg 4" in text
    assert matched_cfg(Z2Sampling(warmup=1), steps_of(at), 4.0).at(steps_of(at).info(2)) == pytest.approx(8.0)
    with pytest.raises(ValueError, match="another one"):
        report.report(KSAMPLER(run), latent)


def steps_of(at: Any) -> Any:
    from zigzag import FlowEuler

    return FlowEuler(at.sigmas)


def test_the_lists_of_samplers_get_their_entries_once(package: ModuleType, comfy: SimpleNamespace) -> None:
    entries = ["zigzag_z2", "zigzag_z", "zigzag_implicit_z", "zigzag_end_to_end", "zigzag_resampling"]
    assert ["euler", *entries] == comfy.samplers.KSampler.SAMPLERS
    load()
    assert ["euler", *entries] == comfy.samplers.KSampler.SAMPLERS
    at = host("eps")
    got = run(at, comfy.sampling.sample_zigzag_z)
    assert torch.equal(got, run(at, sampler(ZSampling(), calc_cond_batch=calc_cond_batch)))


def test_every_widget_says_what_it_is_for(package: ModuleType) -> None:
    for node in package.NODE_CLASS_MAPPINGS.values():
        assert node.DESCRIPTION
        for name, (_, options) in node.INPUT_TYPES()["required"].items():
            assert options["tooltip"], name
    assert package.NODE_CLASS_MAPPINGS.keys() == package.NODE_DISPLAY_NAME_MAPPINGS.keys()


@pytest.fixture
def workflows() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zigzag_workflows", HOME / "check/workflows.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_workflows_are_what_their_script_writes(workflows: ModuleType) -> None:
    kept = {path.stem: json.loads(path.read_text()) for path in (HOME / "example_workflows").glob("*.json")}
    assert kept == {name: workflows.saved(nodes) for name, nodes in workflows.WORKFLOWS.items()}
    assert len(kept) == 4


def test_the_example_workflows_set_every_widget_of_the_node_to_a_value_that_it_takes(
    package: ModuleType, workflows: ModuleType
) -> None:
    inputs = package.NODE_CLASS_MAPPINGS["ZigzagSampler"].INPUT_TYPES()["required"]
    for nodes in workflows.WORKFLOWS.values():
        values = nodes["zigzag"].widgets
        for (name, (kind, *options)), value in zip(inputs.items(), values, strict=True):
            if isinstance(kind, list):
                assert value in kind, name
            elif kind == "BOOLEAN":
                assert isinstance(value, bool)
            else:
                assert options[0]["min"] <= value <= options[0]["max"], name
        steps = nodes["sigmas"].widgets[1]
        method = made(package, **dict(zip(inputs, values, strict=True))).sampler_function.method
        assert method.path(steps)


def test_every_link_of_an_example_workflow_joins_slots_of_one_type(workflows: ModuleType) -> None:
    for nodes in workflows.WORKFLOWS.values():
        saved = workflows.saved(nodes)
        by_id = {node["id"]: node for node in saved["nodes"]}
        for number, origin, output, target, place, kind in saved["links"]:
            one, other = by_id[origin]["outputs"][output], by_id[target]["inputs"][place]
            assert one["type"] == kind and other["type"] in (kind, "*")
            assert number in one["links"] and other["link"] == number
        assert all(slot["link"] for node in saved["nodes"] for slot in node["inputs"])


def test_outside_of_comfyui_the_package_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "comfy", None)
    with pytest.raises(ImportError, match="run within ComfyUI only"):
        load()
    forget()


def test_another_version_of_comfyui_is_named(comfy: SimpleNamespace) -> None:
    del comfy.samplers.calc_cond_batch
    with pytest.raises(ImportError, match=r"need comfy\.samplers\.calc_cond_batch .*tried with version"):
        load()
    forget()


def test_without_zigzag_the_package_says_what_to_install(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zigzag.adapters.k_diffusion", None)
    with pytest.raises(ImportError, match="need the package zigzag-diffusion"):
        load()
    forget()
