"""Why a model was not to be had from the hub, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import errors, try_to_load_from_cache

from zigzag.support.commands import one_line

__all__ = ["why_not_loaded"]

# By name, for the hub's client and diffusers reach the network by libraries that change with their versions.
_NETWORK = {"TransportError", "NetworkError", "TimeoutException", "RequestException"}


def why_not_loaded(name: str, error: BaseException) -> str:
    """One line on what loading the model `name` failed by, at the root of it.

    Args:
        name: as on the hub, "owner/model". error: what the loader raised.
    """
    causes = list(_causes(error))
    kinds = [kind for cause in causes for kind in type(cause).__mro__]

    def some(*wanted: type[BaseException]) -> bool:
        return any(isinstance(cause, wanted) for cause in causes)

    if some(errors.GatedRepoError):
        return (
            f"it is gated: accept its terms at https://huggingface.co/{name}, then log in with `hf auth login` or set "
            "HF_TOKEN"
        )
    if some(errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        return "the hub has no such model; look at its name, and if it is private, log in with `hf auth login`"
    if some(errors.HFValidationError):
        return "there is no such folder, and a name on the hub is owner/model"
    if some(errors.OfflineModeIsEnabled):
        return f"{_here(name)}, and HF_HUB_OFFLINE forbids asking the hub"
    if some(ConnectionError, TimeoutError) or any(kind.__name__ in _NETWORK for kind in kinds):
        return f"{_here(name)}, and the hub was not reached; look at the connection, or pass a folder by --model"
    return one_line(error)


def _here(name: str) -> str:
    whole = isinstance(try_to_load_from_cache(name, "model_index.json"), str)
    return "not all of it is in the local cache" if whole else "model_index.json is not in the local cache"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
