"""Any method on any diffusers pipeline: the pipeline's own loop is led along the method's path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from zigzag.adapters.diffusers import unfit
from zigzag.adapters.diffusers.cast import Cast
from zigzag.adapters.diffusers.counting import Run
from zigzag.adapters.diffusers.graphed import graphed
from zigzag.adapters.diffusers.loop import only_inverts
from zigzag.adapters.diffusers.patches import Patches
from zigzag.adapters.diffusers.priors import prior_of
from zigzag.adapters.diffusers.roles import Role
from zigzag.adapters.diffusers.session import Session
from zigzag.adapters.diffusers.ways import Inversion, Reconstruction, Way
from zigzag.checks import as_guidance, check_generator
from zigzag.guidance import Guidance
from zigzag.methods import Method, Steered, is_steered
from zigzag.moves import Move
from zigzag.sampling import Generators
from zigzag.trace import Trace

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from zigzag.parallel import Ranks

__all__ = ["Run", "attach", "models_of"]

MODELS = ("unet", "transformer", "transformer_2", "unconditional_transformer", "prior", "decoder", "image_unet")


@contextmanager
def attach(
    pipe: Any,
    method: Method | Steered | Sequence[Move] | Inversion | Reconstruction,
    *,
    strong: Role | None = None,
    weak: float | Guidance | Role | None = None,
    plain: float | Guidance | Role | None = None,
    trace: Trace | None = None,
    generator: Generators = None,
    graphs: bool = False,
    split: ProcessGroup | DeviceMesh | Ranks | None = None,
) -> Iterator[Run]:
    """Within the block `pipe(…)` samples by `method`; the pipeline's own guidance is the strong one.

        with attach(pipe, Z2Sampling(warmup=5), weak=0.0) as run:
            image = pipe(prompt, guidance_scale=5.5).images[0]
        print(run.rows)

    The pipeline makes every model call itself: its scheduler hands out a time step for each call of the path, and in
    its `step` the predictions go to `zigzag.sampling.traverse` and the state for the next call comes back. So whatever
    the pipeline does around a call (ControlNet, masks, packing, caches, offloading) is done for each. Steps and gap are
    those of the scheduler that the pipeline has, in its own prediction: read off what it does, with the predictions
    that it remembers (by knot) and the noise that it adds, drawn as it would draw it (once for each interval). So a
    zigzag without a gap changes nothing, on a multistep or stochastic scheduler either. Steps of two model calls (Heun,
    KDPM2, PNDM's first) are one: a Denoise makes both calls, an Invert one. A corrector (UniPC, SA-Solver) is left out,
    with a warning, and a last step that does nothing, with its call. `Standard()` leaves the steps to the scheduler:
    bit by bit what the pipeline does by itself.

    Args:
        pipe: a diffusers pipeline with a `scheduler` and a `unet` (`image_unet`), `transformer`, `prior` or `decoder`.
            On leaving the block, also by an exception, it is as it was.
        method: one of `zigzag.methods`; or moves that run from knot 0 to the last; or moves that begin below knot 0 (an
            image to invert) and end anywhere, or an `Inversion` or `Reconstruction`, with a state that is handed in. Or
            a method that is steered by its walk (`zigzag.Steered`), from knot 0 to the last: it is sent each visit
            within the scheduler's `step`, before the pipeline or a callback changes the state.
        weak: the weak guidance, of the two branches that the pipeline evaluates; a number is `CFG(number)`. Or a
            `Role`: what differs in the model's calls for weak predictions, which are then made in passes of the loop of
            their own, and need no second branch. By default 0; but the pipeline as it is, for moves that only go up,
            and for an inversion and its reconstruction, all of whose predictions it makes.
        plain: the same of a Denoise that is plain (`ZSampling(plain=True)`); by default the pipeline as it is.
        strong: a `Role` for the strong predictions; by default the pipeline as it is.
        trace: filled with the last loop of the pipeline.
        generator: for the noise of Renoise, and that which an inversion holds: one, or a list of one for each sample,
            whose image then does not depend on its batch. By default what the pipeline passes to its scheduler (a list
            too), if anything, else torch's global one. The scheduler's own noise, on a path, always comes from
            where the scheduler would take it.
        graphs: call the pipeline's models as CUDA graphs, one for each form of their arguments (which there are, their
            shapes, and what is no tensor) and each role: recorded at the first such call, which takes three calls more,
            and freed with the block. It pays where launching kernels takes longer than running them: small networks,
            small images, small batches. The results are those without, bit for bit. Weights may change in place; a
            model of a `Role` of its own (`module=`) runs as it is.
        split: a group of `torch.distributed`, one dimension of a `DeviceMesh` (`mesh["cfg"]`), or `Ranks` with a time
            limit: over its ranks the rows of the models' calls are split, those of a doubled batch, and where the
            branches take two calls each is made by ranks of its own, at one time. All ranks run the same program, with
            the same noise, and end with the same bits; where one raises within the block, all do. Rows are those of
            the whole. It goes with the context parallelism of diffusers on other dimensions of the mesh.

    A state is handed in as the `latents` of the pipeline, which is called at the size and with the number of prompts
    that they have, and is taken as it is: nothing scales it by `init_noise_sigma`. What comes out is the state at the
    last knot of the path, at knot 0 the noise as the scheduler has it, which is `init_noise_sigma` times the `latents`
    of a pipeline that is not led.

    A callback of the pipeline is called after every model call, not once a step. Its latents are the state of the next
    call (shifted already, for a Shift), at knot `run.knot`, whose levels are `run.alpha` and `run.sigma`; a scheduler's
    `step_index` is that knot's there, and `sigmas[step_index]` its σ. Latents that it returns replace that state.
    `scheduler.add_noise` (or `scale_noise`), called for the time of the next call, noises to that knot: so a pipeline's
    own blend fits the state. For any other time it noises to that time, and for all of `scheduler.timesteps` to the
    level of the state at each of the calls.

    Raises:
        TypeError, ValueError: at once for arguments that do not fit, and for a pipeline that is attached already. From
            within `pipe(…)`, before the first model call, for a number of steps that the method does not take, a
            scheduler whose steps cannot be led or have no inverse where the path needs it, or do not suit the scheme, a
            model with a cache, perturbed-attention guidance, and, with more calls than steps, a modular pipeline,
            SDXL's T2I-Adapter, a guidance schedule or a guider that projects by its calls, for a role whose edits do
            not fit the model, or that keys and values which the pipeline keeps would answer, and for a state to be
            handed in that is missing, or of another shape; after it, for guidance with no unconditional branch, or that
            is no combination of two, and for a state of an inversion that is changed on the way.
        RuntimeError: from within `pipe(…)`, for a pipeline whose loop cannot be led, or that steps a copy of its
            scheduler, or another one; of the last at the latest on leaving the block. With `graphs`, at once without
            CUDA, and for a model that is offloaded, has a cache enabled, or is compiled with graphs of its own; at its
            first call for one that cannot be captured; in a later loop where weights were moved or adapters changed.
            With `split`, on all ranks, where one of them raised (which raises that itself), where they make other calls
            or were given other numbers, and where one does not come in time; for gradients.
    """
    scheduler, models = getattr(pipe, "scheduler", None), models_of(pipe)
    if not all(hasattr(scheduler, name) for name in ("step", "set_timesteps")) or not models:
        got = type(pipe).__name__ + (f" with {type(scheduler).__name__}" if scheduler is not None else "")
        raise TypeError(
            f"pipe must have a scheduler, with step and set_timesteps, and one of {', '.join(MODELS)}, got {got}"
        )
    if "step" in vars(scheduler):
        raise ValueError("pipe: its scheduler's step is replaced already, by another attach block; leave that first")
    if isinstance(method, type | str) or not (isinstance(method, Method | Sequence | Way) or is_steered(method)):
        raise TypeError(
            "method must have path(T) or steer(T), or be a sequence of moves, or an Inversion or Reconstruction, got "
            f"{method!r}"
        )
    if trace is not None and not isinstance(trace, Trace):
        raise TypeError(f"trace must be a Trace, got {trace!r}")
    check_generator(generator, max(1, len(generator)) if isinstance(generator, Sequence) else 1)
    if strong is not None and not isinstance(strong, Role):
        raise TypeError(f"strong must be a Role, or None for the pipeline's own guidance, got {strong!r}")
    if weak is None and not isinstance(method, Way) and not only_inverts(method):
        weak = 0.0
    if graphs and split is not None:
        raise ValueError(
            "graphs and split: the ranks tell each other on the host how they are at every call, and a graph replays "
            "nothing of that; leave one of the two out"
        )
    cast = Cast(_role("weak", weak), _role("plain", plain), strong)
    if isinstance(method, Way):
        _check_way(cast, trace)
    session = Session(pipe, models, method, cast, trace, generator)
    with Patches() as patches:
        if split is not None:
            from zigzag.adapters.diffusers.split import split_calls

            split_calls(pipe, models, cast, lambda: session.now.playing, split, patches)
        if graphs:
            session.graphs = graphed(models, patches, lambda: session.now.playing)
        session.take_over(patches)
        try:
            yield session.run
        except IndexError as error:
            if session.now.steered:
                unfit.explain_missing(error, method)
            raise
        session.now.check_explained()


def _role(name: str, given: float | Guidance | Role | None) -> Guidance | Role | None:
    return given if given is None or isinstance(given, Role) else as_guidance(name, given)


def _check_way(cast: Cast, trace: Trace | None) -> None:
    if any(hasattr(rule, "reset") for rule in cast.rules().values()):
        raise ValueError(f"weak={cast.weak!r} has a state, and would guide the way back otherwise; take CFG")
    if trace is not None:
        raise ValueError("trace is of moves, and an inversion is none; its report is run.inverted.report")


def models_of(pipe: Any) -> list[nn.Module]:
    """The networks that a pipeline calls step by step along its scheduler, of those that it has."""
    found, prior = [getattr(pipe, name, None) for name in MODELS], prior_of(pipe)
    return [model for model in found if isinstance(model, nn.Module) and model is not prior]
