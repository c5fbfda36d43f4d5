"""Training: what is learned from, and that a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers")
pytest.importorskip("safetensors")
from zigzag import zoo
from zigzag.zoo.checkpoints import read_state
from zigzag.zoo.learned import MODELS
from zigzag.zoo.objectives import MIX, Settings, batch, loss
from zigzag.zoo.shapes import CATEGORIES, WORDS, parse
from zigzag.zoo.states import noise_table, preconditioning
from zigzag.zoo.train import main, report
from zigzag.zoo.training import Training, rate


def said(tokens: Tensor) -> list[str]:
    return [" ".join(WORDS[k - 1] for k in row if k) for row in tokens.tolist()]


def test_a_batch_depends_on_the_seed_and_the_step_alone() -> None:
    one = batch(Settings("shapes-unet", 10, batch=8), 3)
    again = batch(Settings("shapes-dit", 20, batch=8, rate=1.0), 3)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    for settings, step in ((Settings("shapes-unet", 10, batch=8), 4), (Settings("shapes-unet", 10, 8, seed=1), 3)):
        assert not torch.equal(one[2], batch(settings, step)[2])


def test_a_batch_has_captions_of_all_categories_a_tenth_dropped_and_spread_times() -> None:
    """2,000 captions: 4.5 standard deviations of a share p are 0.1·√(p(1 − p)), at most 0.05."""
    _, tokens, noise, u = batch(Settings("shapes-unet", 10, batch=2000), 0)
    texts = said(tokens)
    assert abs(texts.count("") / 2000 - 0.1) < 0.03
    kinds = Counter(parse(text).category for text in texts if text)
    assert set(kinds) == set(CATEGORIES) == set(MIX)
    assert all(abs(kinds[name] / kinds.total() - share) < 0.05 for name, share in MIX.items())
    assert torch.equal((u * 2000).long(), torch.arange(2000))  # one in every two-thousandth
    assert abs(noise.std() - 1) < 0.01


def test_the_images_of_a_batch_show_what_its_words_say() -> None:
    pytest.importorskip("scipy")
    from zigzag.zoo.shapes import check
    from zigzag.zoo.states import to_image

    x0, tokens, _, _ = batch(Settings("shapes-unet", 10, batch=100), 0)
    kept = [k for k, text in enumerate(said(tokens)) if text]
    assert all(check([said(tokens)[k] for k in kept], to_image(x0[kept])))
    assert not any(check(["a circle above a square"] * 2, to_image(x0[:2] * 0)))


class Perfect(nn.Module):
    """Finds what was noised from the image that it is told, and answers with `said` of it."""

    def __init__(self, name: str, x0: Tensor, off: float = 0.0) -> None:
        super().__init__()
        self.name, self.x0, self.off = name, x0, off

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        if self.name == "shapes-unet":
            alpha, sigma = (table[t.long()][:, None, None, None] for table in noise_table())
            return (alpha * (x - alpha * self.x0) / sigma - sigma * self.x0).float() + self.off
        sigma = (t / 1000)[:, None, None, None]
        return ((x - self.x0) / sigma).float() + self.off * preconditioning(sigma)[2]


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_the_mean_square_of_the_error_of_what_the_model_should_predict(name: str) -> None:
    """0 for the truth, and q² for the truth plus q (times c_out, for the flow).

    The truth is found at noise as small as 0.01, and so to 1e-3.
    """
    x0, tokens, noise, u = batch(Settings(name, 10, batch=16), 0)
    assert loss(Perfect(name, x0), name, x0, tokens, noise, u).item() < 1e-5
    torch.testing.assert_close(
        loss(Perfect(name, x0, 0.5), name, x0, tokens, noise, u), torch.tensor(0.25), rtol=1e-2, atol=0
    )
    other = MODELS[name == MODELS[0]]  # mutant: the other parametrisation
    assert loss(Perfect(other, x0), name, x0, tokens, noise, u).item() > 0.01


def test_the_rate_rises_to_its_highest_and_falls_to_nothing() -> None:
    settings = Settings("shapes-unet", 1000, rate=2e-3)
    rates = [rate(settings, step) for step in range(1000)]
    top = rates.index(max(rates))
    assert top in (49, 50) and abs(max(rates) - 2e-3) < 3e-5
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 1e-7 and 0 < rates[0] < 3e-5


@pytest.mark.parametrize("name", MODELS)
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(name: str, tmp_path: Path) -> None:
    """Bit for bit: network, average, optimiser and losses after 2 + 2 steps are those after 4."""
    settings = Settings(name, 4, batch=2)
    whole, first, second = Training(settings), Training(settings), Training(settings)
    for _ in range(4):
        whole.advance()
    for _ in range(2):
        first.advance()
    first.save(tmp_path)
    second.resume(tmp_path)
    assert second.step == 2
    for _ in range(2):
        second.advance()
    assert torch.equal(torch.stack(whole.losses), torch.stack(second.losses))
    for key, parameter in whole.parameters.items():
        assert torch.equal(parameter, second.parameters[key])
        assert torch.equal(whole.average[key], second.average[key])
        assert not torch.equal(parameter, first.parameters[key]) or key.endswith("bias")
    with pytest.raises(ValueError, match="seed must be that of the run in"):
        Training(Settings(name, 4, batch=2, seed=1)).resume(tmp_path)
    Training(Settings(name, 9, batch=2)).resume(tmp_path)  # more steps are no other run


@pytest.mark.parametrize("name", MODELS)
def test_processes_that_share_a_batch_learn_what_one_learns(name: str, tmp_path: Path) -> None:
    """Their weights move as one process's, to a hundredth of the way, where half a batch would lead elsewhere."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "zigzag.zoo.train", name]
    options = ["--steps", "3", "--batch", "4", "--device", "cpu", "--threads", "1", "--out", str(tmp_path)]
    ran = subprocess.run([sys.executable, *command, *options], capture_output=True, text=True, timeout=300, check=True)
    assert ran.stdout.count("step 3 of 3: loss ") == 1  # one of them reports
    start, whole, shared = (Training(Settings(name, 3, batch=4)) for _ in range(3))
    shared.resume(tmp_path)
    for _ in range(3):
        whole.advance()
    torch.testing.assert_close(torch.stack(shared.losses), torch.stack(whole.losses), rtol=1e-3, atol=0)
    origin, one, two = (
        torch.cat([p.detach().flatten() for p in run.parameters.values()]) for run in (start, whole, shared)
    )
    assert (two - one).norm() < 0.01 * (one - origin).norm()


def test_the_weights_written_are_the_average_in_half_precision(tmp_path: Path) -> None:
    training = Training(Settings("shapes-unet", 2, batch=2))
    training.advance()
    training.advance()
    training.save(tmp_path)
    loaded = dict(zoo.load("shapes-unet", tmp_path / "weights.safetensors").network.named_parameters())
    assert loaded.keys() == training.average.keys()
    for key, value in training.average.items():
        assert torch.equal(loaded[key], value.half().float())
    with pytest.raises(ValueError, match="is no checkpoint"):
        (tmp_path / "checkpoint.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes())
        training.resume(tmp_path)


def test_a_report_draws_the_loss_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    training = Training(Settings("shapes-dit", 3, batch=2))
    training.advance()
    report(training, tmp_path)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "step 1 of 3: loss " in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.safetensors",
        "loss.png",
        "weights.safetensors",
    ]


def test_the_command_trains_and_run_again_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "shapes-unet", "--out", str(tmp_path), "--batch", "2", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--steps", "1"])
    main()
    assert capsys.readouterr().out.startswith("step 1 of 1: loss ")
    monkeypatch.setattr(sys, "argv", [*command, "--steps", "2"])
    main()
    assert f"going on from step 1 of {tmp_path}\nstep 2 of 2: loss " in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--steps", "2", "--seed", "1"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "error: seed must be that of the run in" in capsys.readouterr().err


def test_a_run_begins_with_the_weights_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first loss is theirs, its average begins with them, and it goes on from its own."""
    name, given, out = "shapes-dit", tmp_path / "given", tmp_path / "out"
    Training(Settings(name, 1, batch=2, seed=5)).save(given)
    weights = given / "weights.safetensors"
    command = ["train", name, "--out", str(out), "--batch", "2", "--rate", "1e-12", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--weights", str(weights), "--steps", "1"])
    main()
    first, _ = read_state(out / "checkpoint.safetensors")
    theirs, fresh = zoo.load(name, weights).network, Training(Settings(name, 1, batch=2)).network
    expected, other = (loss(network, name, *batch(Settings(name, 1, batch=2), 0)) for network in (theirs, fresh))
    torch.testing.assert_close(first["losses"][0], expected, rtol=1e-5, atol=0)
    assert abs(other / expected - 1) > 1e-3  # mutant: random weights
    for key, value in theirs.named_parameters():
        torch.testing.assert_close(first[f"average.{key}"], value.detach(), rtol=0, atol=1e-9)
    monkeypatch.setattr(sys, "argv", [*command, "--weights", str(weights), "--steps", "2"])
    main()
    assert "going on from step 1 of" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--steps", "2"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "start must be that of the run in" in capsys.readouterr().err
    with pytest.raises(ValueError, match="weights must be of shapes-unet, got those of 'shapes-dit'"):
        Training(Settings("shapes-unet", 1, batch=2)).begin(weights)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"rate": -1.0}])
def test_settings_that_train_nothing_are_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        Settings(**{"name": "shapes-unet", "steps": 10, **wrong})
