"""``course causality``: every way to take a concept away, on many concepts, with all nulls; JSON and a table."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils.cli.frontier import add_common, finish
from course_utils.errors import CourseError
from course_utils.paths import build_dir

if TYPE_CHECKING:
    from course_utils.causality.bench import Sweep
    from course_utils.lab import Lab


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``causality`` to ``course``."""
    parser = commands.add_parser("causality", help="notebook 09's trial of many concepts (minutes; goes on if cut off)")
    parser.add_argument("--concepts", type=int, default=24, metavar="N", help="how many (default 24)")
    parser.add_argument("--places", type=int, default=16, metavar="N", help="places of each split (default 16)")
    parser.add_argument("--nulls", type=int, default=100, metavar="N", help="draws of each null (default 100)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="SAEs that differ in their seed (default 5)")
    parser.add_argument("--least", type=float, default=0.5, metavar="P",
                        help="probability of the word that counts as saying it (default 0.5)")
    add_common(parser, "causality")
    parser.add_argument("--picture", type=Path, metavar="FILE",
                        help="measure nothing: draw what is kept for the model, as docs/still_there.png is")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Make what is missing of the SAEs and of the sweep, then write the table."""
    from course_utils.causality.bench import Plan
    from course_utils.causality.kept import kept_sweep, sweep
    from course_utils.causality.occasions import concept_list
    from course_utils.lab import open_lab

    if args.seeds < 1:
        raise CourseError(f"--seeds={args.seeds} must be at least 1.")
    lab = open_lab(args.model, text=args.text)
    if args.picture:
        found = kept_sweep(lab)
        if found is None:
            raise CourseError(f"--picture={str(args.picture)!r}: nothing is kept for {lab.name}; make it without.")
        picture(found, args.picture)
        return 0
    plan = Plan(lab.middle_hook, tuple(concept_list(lab, args.concepts)), args.places, n_null=args.nulls,
                least=args.least)
    folder, name = args.out or build_dir() / "causality", f"causality-{lab.name.replace('/', '--')}"
    found = sweep(lab, plan, dictionaries(lab, plan.hook, args.seeds), folder / f"{name}.json")
    finish(folder / name, table(found), ".json, .md", args.install)
    return 0


def dictionaries(lab: Lab, hook: str, seeds: int) -> dict[str, Any]:
    """Return SAEs of one recipe that differ in their seed, a wide one, and one whose decoder stayed as it was drawn."""
    from course_utils.dictionaries import ready_sae
    from course_utils.dictionaries.ready import remade
    from course_utils.dictionaries.shelf import recipes

    first = ready_sae(lab, hook)
    same = [spec for spec in recipes().values() if (spec.hook, spec.width, spec.kind, spec.seed) == (
        hook, first.cfg.d_sae, "batchtopk", 0) and "freeze_decoder" not in spec.settings]
    shipped = lab.world is not None and same
    others = [remade(lab, replace(same[0], seed=seed)) if shipped else ready_sae(lab, hook, seed=seed)
              for seed in range(1, seeds)]
    return {f"seed {i}": sae for i, sae in enumerate([first, *others])} | {
        "width 4,096": ready_sae(lab, hook, width=4096), "frozen decoder": ready_sae(lab, hook, freeze_decoder=True)}


def picture(found: Sweep, file: Path) -> None:
    """Draw what remains of the answer by what was taken away; the numbers stand in the file's "Description" as well."""
    from course_utils.causality.removal import BY_ANSWER, BY_WORD, DIFF, LEACE, NULLS
    from course_utils.evidence import bootstrap
    from course_utils.plots import intervals
    from course_utils.plots.figures import PALETTE, alt_text, new_axes

    taken = {"chance: 4 others that fire as often": 1 - found.lost(NULLS[0]),
             "the latent that fires on the concept": found.column(BY_WORD, "k=1"),
             "the 4 latents that the answer hangs on": found.column(BY_ANSWER, "k=4"),
             "the 64 latents that it hangs on": found.column(BY_ANSWER, "k=64"),
             "one direction: the difference of means": found.column(DIFF, "1"),
             "all that any linear probe could read": found.column(LEACE, "1")}
    shares = [bootstrap(column) for column in taken.values()]
    over = f"{len(found.plan.concepts)} concepts, 95 % intervals"
    ax = intervals([*taken], shares, ax=new_axes(None, 8.6, 3.2), reference=1.0,
                   title="Take a concept out of the model. Does it still say the word?",
                   xlabel=f"share of the answer's lead that remains ({over})")
    for row, share in enumerate(reversed(shares)):
        ax.annotate(f"{share.value:.0%}", (share.value, row), (-5, 5), textcoords="offset points", ha="right",
                    color=PALETTE[0], weight="bold", fontsize=9)
    ax.set_xlim(0, 1.1)
    file.parent.mkdir(parents=True, exist_ok=True)
    ax.figure.savefig(file, dpi=144, bbox_inches="tight", metadata={"Description": alt_text(ax.figure)})
    print(f"{file}: {alt_text(ax.figure)}")


def table(found: Sweep) -> str:
    """Return the means over concepts as a Markdown table."""
    from course_utils.evidence import bootstrap

    heads = ["way", "setting", "remains", "probability", "others", "damage, nats"]
    lines = [heads, ["---"] * len(heads)]
    for cell in found.found[0].cells:
        columns = {what: found.column(cell.way, cell.setting, what) for what in ("remains", "p", "others", "damage")}
        lines.append([cell.way, cell.setting, f"{bootstrap(columns['remains']):.2f}", f"{columns['p'].mean():.3f}", *(
            "" if getattr(cell, what) is None else f"{columns[what].mean():.3f}" for what in ("others", "damage"))])
    lines += [[f"null: {name}", "", f"{found.null(name).mean():.2f}", "", "", ""] for name in found.found[0].nulls]
    for name in found.found[0].dictionaries:
        shares = [bootstrap([f.dictionaries[name][i] for f in found.found]) for i in range(len(found.plan.ks))]
        lines.append([f"latents of {name}", f"k={found.plan.ks}", ", ".join(f"{e.value:.2f}" for e in shares), "", "",
                      ""])
    for name in found.saes:
        f1, remains = found.detector(name)
        lines.append([f"best detector of {name}", f"F1 {f1.mean():.2f}", f"{bootstrap(remains):.2f}", "", "", ""])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
