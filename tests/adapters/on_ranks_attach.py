"""`attach(…, split=)` on every rank of a group; run by test_attach_split.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import peft
import tiny_distilled
import tiny_dits
import tiny_packed
import tiny_unets
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from support.ranks import SECONDS, Check, main, raises, same_on_all
from zigzag import Standard, Trace, Z2Sampling, ZSampling
from zigzag.adapters.diffusers import Inversion, Reconstruction, Role, attach, w2sd
from zigzag.inversion import EDICT
from zigzag.parallel import Ranks

STEPS = 4
Z, Z2 = ZSampling(steps=2), Z2Sampling(warmup=1)


def ranks() -> Ranks:
    """All, in a group of their own: an exchange that was not completed spoils no other."""
    return Ranks(dist.new_group(), SECONDS)


@contextmanager
def made(model: Any) -> Iterator[list[int]]:
    """The rows of the calls that this rank makes of a model."""
    rows, forward = list[int](), model.forward

    def count(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(args[0] if args else kwargs["hidden_states"]))
        return forward(*args, **kwargs)

    model.forward = count
    try:
        yield rows
    finally:
        del model.forward


def run(case: Any, method: Any, **given: Any) -> tuple[Tensor, int, list[int]]:
    """What a case gives, the rows of the whole, and those of the calls that were made here."""
    with made(case.model) as rows, attach(case.pipe, method, **given) as told:
        out = case.run(num_inference_steps=STEPS)
    return out, told.rows, rows


def on_two_ranks(check: Check) -> Check:
    """Left out on more, which would show nothing else."""
    return lambda rank, size: check(rank, size) if size == 2 else None


def off(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


def check_split(case: Any, method: Any, **given: Any) -> list[int]:
    """The same bits on all ranks, to rounding those of the whole, in as many rows; gives the rows made here."""
    plain = case.run(num_inference_steps=STEPS)
    whole, rows, _ = run(case, method, **given)
    out, counted, here = run(case, method, split=ranks(), **given)
    assert same_on_all(out) and counted == rows
    assert off(out, whole) <= min(1e-5, off(whole, plain) / 10)
    assert "forward" not in vars(case.model) and type(out) is Tensor
    return here


def check_a_doubled_batch(rank: int, size: int) -> None:
    """SD3 calls once a step: each rank makes its part of the rows, of one sample too, on more ranks than rows."""
    for batch in (1, 2):
        share = -(-2 * batch // size)
        here = check_split(tiny_dits.sd3(batch), Z)
        assert set(here) == {share} and (len(here) > 1) == (rank * share < 2 * batch)
    plain = tiny_dits.sd3(2).run(num_inference_steps=STEPS)
    assert off(run(tiny_dits.sd3(2), Standard(), split=ranks())[0], plain) <= 1e-5


def check_two_calls(rank: int, size: int) -> None:
    """Wan calls twice a step: of one sample the first rank makes the first call, the second the other, as they are."""
    case = tiny_dits.wan()
    whole, _, calls = run(case, Z2)
    here = check_split(case, Z2)
    assert set(here) == {1}
    # The first call is made by all, to see what it gives, and the other of that step before there is a third.
    assert len(here) == {0: len(calls) // 2 + 1, 1: len(calls) // 2}.get(rank, 1)
    assert torch.equal(run(case, Z2, split=ranks())[0], whole)
    check_split(tiny_dits.wan(3), Z)
    if size == 2:  # a slice of the first call's output is taken before the second is made
        here = check_split(tiny_packed.flux2_klein(image=Image.new("RGB", (64, 64))), Z2)
        assert len(here) == len(calls) // 2 + (rank == 0)


def check_one_branch(rank: int, size: int) -> None:
    """A distilled Flux, of a call a role: those of the inversions too are split over the batch."""
    case, weak = tiny_distilled.one_branch("flux", 4), Role(guidance=1.0)
    _, _, calls = run(case, Z, weak=weak)
    assert check_split(case, Z, weak=weak) == [4 // size] * len(calls)


@on_two_ranks
def check_lora_strengths(rank: int, size: int) -> None:
    """Which are set for the time of a call: it is made then, and not when its output is looked at."""
    case = tiny_unets.sdxl()
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
    case.model.add_adapter(config, "style")
    case.pipe.set_adapters("style", 0.8)
    check_split(case, **w2sd("style"))


@on_two_ranks
def check_another_network(rank: int, size: int) -> None:
    """Of a role: its rows are split as well."""
    case, other = tiny_dits.sd3(), tiny_dits.sd3().model
    with made(other) as rows:
        check_split(case, Z, weak=Role(module=other, cfg=2.0))
        rows.clear()
        run(case, Z, weak=Role(module=other, cfg=2.0), split=ranks())
    assert set(rows) == {1} and "forward" not in vars(other)


@on_two_ranks
def check_an_inversion_and_a_trace(rank: int, size: int) -> None:
    """A scheme leads up and down again; a trace has the rows of the whole, and the same numbers on all ranks."""
    case = tiny_dits.sd3(2)
    x0, group = case.run(num_inference_steps=STEPS), ranks()
    with attach(case.pipe, Inversion(EDICT()), split=group) as told:
        case.pipe(**case.call, latents=x0, num_inference_steps=STEPS, output_type="latent")
    assert same_on_all(told.inverted.noise)
    with attach(case.pipe, Reconstruction(told.inverted), split=group):
        back = case.pipe(**case.call, num_inference_steps=STEPS, output_type="latent").images
    assert same_on_all(back) and off(back, x0) <= 1e-4
    own, split = Trace(), Trace()
    run(case, Z, trace=own)
    run(case, Z, trace=split, split=group)
    (x, y), rows = ([record.delta for record in trace.records if record.delta is not None] for trace in (own, split)), 2
    assert split.rows == own.rows and len(x) == len(y) == rows and same_on_all(torch.stack(y))
    assert off(torch.stack(y), torch.stack(x)) <= 1e-4


def check_a_rank_that_raises(rank: int, size: int) -> None:
    """In its model, or anywhere else in the block: all raise, long before the time is up."""
    for place in ("model", "callback", "after"):
        case, begin = tiny_dits.wan(), time.monotonic()

        def fails(here: str, of: str = place) -> None:
            if here == of and rank == size - 1:
                raise LookupError("no luck here")

        case.model.blocks[0].register_forward_pre_hook(lambda *args, fails=fails: fails("model"))
        case.call["callback_on_step_end"] = lambda *args, fails=fails: fails("callback") or {}
        # The model raises before it is known what it gives, on the last rank too, which has no rows later on.
        told = f"rank {size - 1} of {size} raised LookupError: no luck here"
        error = raises(LookupError, "no luck") if rank == size - 1 else raises(RuntimeError, told)
        with error, attach(case.pipe, Z2, split=ranks()):
            case.run(num_inference_steps=STEPS)
            fails("after")
        assert time.monotonic() - begin < SECONDS / 2, place
        assert "forward" not in vars(case.model)


@on_two_ranks
def check_other_ways_are_seen(rank: int, size: int) -> None:
    """Noise of another seed on one rank, and one that leaves without sampling."""
    case = tiny_dits.sd3()
    case.latents = case.latents + rank * 1e-3
    with raises(RuntimeError, "with other numbers than rank 0"), attach(case.pipe, Z2, split=ranks()):
        case.run(num_inference_steps=STEPS)
    case = tiny_dits.sd3()
    error = raises(RuntimeError, "do not make the same calls", "rank 0 has left the attach block")
    with error, attach(case.pipe, Z2, split=ranks()):
        if rank:
            case.run(num_inference_steps=STEPS)


@on_two_ranks
def check_what_cannot_be_split(rank: int, size: int) -> None:
    """Perturbed attention, a cache, a network within another, and gradients."""
    case = tiny_dits.sd3()
    case.pipe.__class__ = type("Perturbed", (type(case.pipe),), {"do_perturbed_attention_guidance": True})
    error = raises(ValueError, "split: the pipeline does perturbed-attention guidance", "set pag_scale=0")
    with error, attach(case.pipe, Standard(), split=ranks()):
        case.run(num_inference_steps=STEPS)
    case = tiny_packed.flux()
    case.model.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.1))
    with raises(ValueError, "has a cache enabled"), attach(case.pipe, Standard(), split=ranks()):
        pass
    case = tiny_dits.sd3()
    weak = Role(module=torch.nn.Sequential(case.model))
    with raises(ValueError, "split: Sequential is made of the pipeline's own network"):
        attach(case.pipe, Z, weak=weak, split=ranks()).__enter__()
    with raises(RuntimeError, "would record gradients"), attach(case.pipe, Standard(), split=ranks()):
        case.model(case.latents, **case.cond, timestep=torch.ones(1))


def check_ulysses_on_the_same_mesh(rank: int, size: int) -> None:
    """The context parallelism of diffusers on one dimension, the rows on the other: the bits of one process."""
    torch.accelerator.device_count = lambda: 1  # of a CPU, by which diffusers divides
    case = tiny_dits.wan()
    whole, rows, calls = run(case, Z)
    mesh = init_device_mesh("cpu", (size // 2, 1, 2), mesh_dim_names=("cfg", "ring", "ulysses"))
    case.model.set_attention_backend("native")
    case.model.enable_parallelism(
        config=diffusers.ContextParallelConfig(ulysses_degree=2, mesh=mesh["ring", "ulysses"])
    )
    out, counted, here = run(case, Z, split=Ranks(mesh["cfg"], SECONDS))
    assert torch.equal(out, whole) and counted == rows
    assert size == 2 or len(here) == len(calls) // 2 + (mesh["cfg"].get_local_rank() == 0)


if __name__ == "__main__":
    diffusers.logging.set_verbosity_error()
    main({name: check for name, check in globals().items() if name.startswith("check_") and name != "check_split"})
