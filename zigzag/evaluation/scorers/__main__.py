"""`python -m zigzag.evaluation.scorers pickscore clip`: whether scores can be asked here, and agree with the record."""

from __future__ import annotations

from zigzag.evaluation.scorers import SCORERS, scorer
from zigzag.evaluation.scorers.recorded import PROBES, differences
from zigzag.support.commands import Parser, ending


def main() -> None:
    """Prints each score's weights and what it says; exits with 2 where one is not to be had, or differs."""
    parser = Parser(prog="python -m zigzag.evaluation.scorers", description=__doc__)
    known = ", ".join(name for name in SCORERS if name != "shapes")
    parser.add_argument("scores", nargs="+", metavar="SCORE", help=f"{known}, or module:object; with options")
    parser.add_argument("--device", default="cpu", help="where they run")
    args = parser.parse_args()
    with ending(parser.prog, "nothing is kept"):
        wrong = []
        for text in args.scores:
            score = scorer(text, args.device, PROBES)
            said, verdict = differences(score)
            print(f"{score.name}: {score.weights()}")
            print(f"  {' '.join(f'{value:.5f}' for value in said)}   {verdict}", flush=True)
            if verdict.startswith("DIFFERS"):
                wrong.append(score.name)
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not what is on record; weights or versions are others")


if __name__ == "__main__":
    main()
