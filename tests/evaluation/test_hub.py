"""What the hub says, brought to one line that says what to do."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
from diffusers import DiffusionPipeline
from huggingface_hub import errors

from zigzag.cli import main

# The library by which this version of the hub's client reaches the network.
httpx: Any = import_module(errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0])


def answer(kind: Any, status: int) -> Exception:
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/models/o/m"))
    made: Exception = kind(f"{status} Client Error.\n\nRepository Not Found for url: …", response=response)
    return made


ERRORS: dict[str, tuple[Any, list[str]]] = {
    "gated": (lambda: answer(errors.GatedRepoError, 403), ["gated", "https://huggingface.co/o/m", "hf auth login"]),
    "unknown": (lambda: answer(errors.RepositoryNotFoundError, 401), ["the hub has no such model", "private"]),
    "no connection": (lambda: httpx.ConnectError("[Errno -2] Name or service not known"), ["was not reached"]),
    "slow": (lambda: httpx.ReadTimeout("timed out"), ["was not reached"]),
    "offline": (lambda: errors.OfflineModeIsEnabled("Cannot reach: offline mode"), ["HF_HUB_OFFLINE"]),
    "a name of another form": (lambda: errors.HFValidationError("Repo id must be in the form"), ["owner/model"]),
    "something else": (lambda: KeyError("unet\nand more"), ["unet"]),
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", ERRORS)
def test_what_keeps_a_model_from_being_loaded_is_one_line_with_a_hint(
    name: str, wrapped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, said = ERRORS[name]

    def fail(*given: Any, **more: Any) -> None:
        if not wrapped:
            raise make()
        try:
            raise make()
        except Exception as error:
            text = f"Cannot load model o/m: {make()}. Please check out the root cause in the stacktrace above."
            raise OSError(text) from error

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", fail)
    with pytest.raises(SystemExit) as exit:
        main(["generate", "--model", "o/m", "--device", "cpu", "--dtype", "float32", "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1
    assert error.startswith("zigzag generate: error: cannot load model o/m: ")
    assert [word for word in said if word not in error] == []
