"""``course saes frontier``: every family at several L0s, trained and judged; JSON, a table and a figure."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from course_utils.errors import one_of
from course_utils.paths import DATA, build_dir, write_sums

if TYPE_CHECKING:
    from course_utils.dictionaries.frontiers import Frontier


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Add ``frontier`` to ``course saes``."""
    parser = verbs.add_parser("frontier", help="L0 against faithfulness for every family (minutes; goes on if cut off)")
    parser.add_argument("--l0", nargs="+", type=float, default=[8.0, 16.0, 32.0, 64.0], metavar="N",
                        help="active latents to compare the families at")
    parser.add_argument("--families", nargs="+", default=[], metavar="NAME", help="only these, such as TopK L1")
    parser.add_argument("--seeds", type=int, default=2, help="SAEs for each point (default 2)")
    parser.add_argument("--width", type=int, default=1024, help="latents (default 1024)")
    parser.add_argument("--samples", type=int, default=400_000, help="activations to train each on (default 400,000)")
    add_common(parser, "frontier")
    parser.set_defaults(func=run)


def add_common(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add what every long measurement is given: what to measure, and where its results go."""
    parser.add_argument("--model", help="as in course run (default: the organism)")
    parser.add_argument("--text", help="as in course run")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where to write (default: build/{kind})")
    parser.add_argument("--install", action="store_true", help="also put the JSON into data/results, with its checksum")


def finish(file: Path, text: str, made: str, install: bool) -> None:
    """Write a measurement's table beside its JSON, and say what was made; put the JSON into ``data/results``."""
    Path(f"{file}.md").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n{file}{made}")
    if install:
        (DATA / "results").mkdir(exist_ok=True)
        shutil.copy(f"{file}.json", DATA / "results")
        print(f"data/SHA256SUMS: {write_sums()} files")


def run(args: argparse.Namespace) -> int:
    """Make what is missing of a frontier, then write the table and the figure."""
    from course_utils.dictionaries.frontiers import FAMILIES, Plan, family_frontier
    from course_utils.lab import open_lab

    families = args.families or [*FAMILIES]
    if unknown := [name for name in families if name not in FAMILIES]:
        raise one_of("--families", unknown[0], FAMILIES)
    lab = open_lab(args.model, text=args.text)
    plan = Plan(lab.middle_hook, tuple(args.l0), args.seeds, args.width, max(args.samples // 2, 1), args.samples,
                families=tuple(families))
    folder = args.out or build_dir() / "frontier"
    name = f"frontier-{lab.name.replace('/', '--')}"
    found = family_frontier(lab, plan, folder / f"{name}.json")
    draw(found, folder / f"{name}.png")
    finish(folder / name, table(found), ".json, .md, .png", args.install)
    return 0


def table(found: Frontier) -> str:
    """Return a frontier as a Markdown table: means over the seeds, ranges over them in brackets."""
    heads = {"l0": "L0", "explained_variance": "explained variance", "ce_recovered_mean": "CE recovered (mean)",
             "ce_recovered_zero": "CE recovered (zero)", "cost": "cost, nats a token", "dead": "dead"}
    means = {measure: found.mean(measure) for measure in heads}
    lines = [["family", *heads.values()], ["---"] * (1 + len(heads))]
    for key in means["l0"]:
        shown = [means[m][key] for m in heads]
        forms = [".1f", ".3f", ".4f", ".4f", ".4f", ".1%"]
        lines.append([key[0], *(format(e, form) for e, form in zip(shown, forms, strict=True))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(found: Frontier, file: Path) -> None:
    """Draw CE recovered, cost and explained variance against L0."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from course_utils.plots import frontier

    axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")[1]
    shown = {"ce_recovered_mean": "CE recovered against mean ablation", "cost": "cost of the splice, nats a token",
             "explained_variance": "explained variance"}
    l0 = found.mean("l0")
    for ax, (measure, label) in zip(axes, shown.items(), strict=True):
        frontier(list(l0.values()), list(found.mean(measure).values()), [family for family, _ in l0], ax=ax, logx=True,
                 ylabel=label)
        ax.set_xticks(found.plan.l0s, [f"{n:g}" for n in found.plan.l0s])
        ax.minorticks_off()
    axes[0].figure.suptitle(f"{found.model}, {found.plan.hook}, {found.plan.width:,} latents")
    axes[0].figure.savefig(file, dpi=110)
    plt.close(axes[0].figure)
