"""CUDA graphs of functions that work in buffers: tried first, recorded on a stream of their own, then replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import torch

from zigzag.capture.weights import Weights, modules_run, refusal

__all__ = ["Recording", "can_record"]

K = TypeVar("K")


def can_record(device: torch.device) -> bool:
    """Whether there are graphs on a device."""
    return device.type == "cuda" and torch.cuda.is_available()


class Recording(Generic[K]):
    """A graph of each of several functions, all in one pool of memory.

    A function works in buffers that stay where they are. It runs three times before it is recorded: to choose
    algorithms and compile, to see which modules run, and to see that the host never waits for the device. A wait is an
    error there, with its own traceback; within a capture it would be another one, from which torch up to 2.11 does not
    recover by itself.

    The stream is this recording's own, and so are the workspaces of cuBLAS, which torch keeps by stream: they are
    cleared before the first capture and after the last, so that what the graphs use lies in their own pool, and the
    end of another graph does not free it.

    Args:
        functions: by key. device: theirs, where the graphs are made whatever the current one is.
        reset: called before each run. calls: what the functions call, whose modules are looked for in it.
        instead: what is to be used where nothing can be recorded, for messages.

    Attributes:
        outputs: what each function returned when it was recorded; a replay writes to the same tensors.

    Raises:
        RuntimeError: within `torch.autocast`, for modules that a graph cannot follow, and for what cannot be captured,
            with the innermost reason. What a function raises by itself, and running out of memory, go through as they
            are. Stream, device and debug mode are restored in any case.
    """

    def __init__(
        self,
        functions: Mapping[K, Callable[[], Any]],
        device: torch.device,
        *,
        reset: Callable[[], object] = lambda: None,
        calls: tuple[object, ...] = (),
        instead: str = "use zigzag.sample, or TableLoop",
    ) -> None:
        self.graphs: dict[K, torch.cuda.CUDAGraph] = {}
        self.outputs: dict[K, Any] = {}
        self._instead = instead
        if torch.is_autocast_enabled(device.type) and torch.is_autocast_cache_enabled():
            raise RuntimeError(
                "capture within torch.autocast would keep reading its cache of cast weights, which is freed when its "
                f"block ends; cast the model, pass cache_enabled=False to autocast, or {instead}"
            )
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device):
            before = torch.cuda.current_stream(device)
            self.stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self.stream.wait_stream(before)
            try:
                with torch.cuda.stream(self.stream):
                    self.weights = self._try(functions, reset, calls)
                    reset()
                self._record(functions, device)
            finally:
                torch.cuda.set_stream(before)  # which the end of a failed capture leaves out
            before.wait_stream(self.stream)

    def replay(self, key: K) -> Any:
        """Runs the graph of a function; the result is in the buffers, and in `outputs[key]`, which is returned."""
        self.graphs[key].replay()
        return self.outputs[key]

    def check_weights(self) -> None:
        """Raises RuntimeError where weights lie elsewhere than at the capture: the graphs read where they lay."""
        if (moved := self.weights.moved()) is not None:
            raise RuntimeError(
                f"the model was changed since the capture ({moved}): moved, replaced or added to, where the graphs go "
                f"on reading what was there; capture again (weights that are written to in place may change), or "
                f"{self._instead}"
            )

    def _try(
        self, functions: Mapping[K, Callable[[], Any]], reset: Callable[[], object], calls: tuple[object, ...]
    ) -> Weights:
        def run_all() -> None:
            for function in functions.values():
                reset()
                function()

        run_all()
        # Not in the first run, in which networks are compiled: a hook would be compiled in.
        with modules_run(*calls) as modules:
            run_all()
        if (reason := refusal(modules, *calls)) is not None:
            raise RuntimeError(f"the steps cannot be captured: {reason}, or {self._instead}")
        try:
            with _syncs_are_errors():
                run_all()
        except RuntimeError as error:
            if _is_of_capture(error):
                raise self._explained(error) from error
            raise
        return Weights(modules)

    def _record(self, functions: Mapping[K, Callable[[], Any]], device: torch.device) -> None:
        pool = torch.cuda.graph_pool_handle()
        _clear_workspaces()
        for key, function in functions.items():
            graph, inner = torch.cuda.CUDAGraph(), None
            try:
                # Other threads may go on allocating.
                with torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"):
                    try:
                        self.outputs[key] = function()
                    except Exception as error:
                        inner = error
                        raise
            except Exception as error:
                _close(pool, device)
                first = inner or error  # the end of the capture has an error of its own then, which says less
                if _is_of_capture(first):
                    raise self._explained(first) from first
                raise first from None
            self.graphs[key] = graph
        _clear_workspaces()

    def _explained(self, error: Exception) -> RuntimeError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return RuntimeError(
            f"the steps could not be captured ({reason}): eps_fn must not wait for the device, nor move data between "
            f"devices; {self._instead}"
        )


def _is_of_capture(error: Exception) -> bool:
    """Whether an error is of waiting, or of what else a capture forbids; not of memory, nor of the function's own."""
    said = str(error).lower()
    return (
        isinstance(error, RuntimeError)
        and not isinstance(error, torch.OutOfMemoryError)
        and ("captur" in said or "synchroniz" in said)
    )


@contextmanager
def _syncs_are_errors() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _close(pool: Any, device: torch.device) -> None:
    # Torch up to 2.11 leaves the allocator recording into the pool of a capture that failed, and asserts afterwards.
    end = getattr(torch._C, "_cuda_endAllocateToPool", None)
    if end is not None:
        with suppress(RuntimeError):  # later versions have ended it
            end(device.index, pool)


def _clear_workspaces() -> None:
    # Torch has no public name for it; its own graph trees do the same around a capture.
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()
