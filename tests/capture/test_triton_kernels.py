"""The fused kernel as it is built for a device, ahead of time: needs Triton, and no GPU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from zigzag.capture.kernels import BLOCK, WARPS

triton = pytest.importorskip("triton")
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"

TYPES = {"out": "*fp32", "y": "*fp32", "table": "*fp32", "k": "*i64", "BLOCK": "constexpr", "TERMS": "constexpr"}


class Built(NamedTuple):
    ptx: str
    shared: int
    registers: int
    local: int
    instructions: list[str]  # of the machine, those that touch memory, wait for each other or multiply


def build(folder: Path, capability: int, dtype: str, terms: int, warps: int = WARPS) -> Built:
    """For predictions of a dtype, where sizes and addresses are multiples of 16, as those of latents are."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from zigzag.capture.triton_kernels import combine_kernel as kernel

    names = kernel.arg_names
    predictions = {name: f"*{dtype}" for name in names if re.fullmatch(r"e\d", name)}
    signature = {name: {**TYPES, **predictions}.get(name, "i32") for name in names}
    aligned = [name for name in names if signature[name].startswith("*") or name == "inner" or name.startswith("s")]
    source = ASTSource(
        kernel, signature, {(names.index("BLOCK"),): BLOCK, (names.index("TERMS"),): terms},
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )  # fmt: skip
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(built.asm["cubin"])
    usage = tool("cuobjdump", "--dump-resource-usage", cubin)
    (registers, local), *rest = re.findall(r"REG:(\d+).*LOCAL:(\d+)", usage)
    assert not rest
    instructions = re.findall(r"\b((?:LDG|STG|LDS|STS|BAR|FFMA|FMUL|FADD)\b[.\w]*)", tool("nvdisasm", "-c", cubin))
    return Built(built.asm["ptx"], built.metadata.shared, int(registers), int(local), instructions)


def tool(name: str, *arguments: Any) -> str:
    return subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True).stdout


def accesses(ptx: str) -> dict[str, list[int]]:
    """The bits of each access of global memory, in the order in which they stand."""
    found: dict[str, list[int]] = {"ld": [], "st": []}
    for way, wide, bits in re.findall(r"(ld|st)\.global(?:\.v(\d))?\.b(\d+)", ptx):
        found[way].append(int(wide or 1) * int(bits))
    return found


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("terms", [1, 2, 4])
def test_a_thread_moves_four_numbers_in_one_access_and_asks_for_all_before_it_computes(
    tmp_path: Path, capability: int, dtype: str, terms: int
) -> None:
    """The state in 128 bits, a prediction in as many as four numbers have; no detour, nothing spilled."""
    built = build(tmp_path, capability, dtype, terms)
    moved = accesses(built.ptx)
    prediction = 4 * (32 if dtype == "fp32" else 16)
    assert moved["ld"] == [64, 128, *[prediction] * terms, *[32] * (1 + terms)]  # k, latents, coefficients
    assert moved["st"] == [128]
    assert built.shared == built.local == 0 and built.registers < 64
    assert not any(name.startswith(("LDS", "STS", "BAR")) for name in built.instructions)
    asked = [k for k, name in enumerate(built.instructions) if re.match(r"LDG.*\.(64|128)", name)]
    computed = [k for k, name in enumerate(built.instructions) if name.startswith(("FFMA", "FMUL", "FADD"))]
    assert len(asked) == 2 + terms
    if terms < 4 or dtype != "fp32":  # with four of those, ptxas holds registers back
        assert max(asked) < min(computed)


def test_with_four_warps_predictions_take_a_detour(tmp_path: Path) -> None:
    """Why there are eight, and that the check above would see it."""
    built = build(tmp_path, 90, "bf16", 2, warps=4)
    assert built.shared > 0 and any(name.startswith("BAR") for name in built.instructions)
