"""Sum up: the table of all measurements, and a figure of cost growth and of the distance to the machine's limit.

Reads ``build/bench/*.json``, writes ``build/bench/table.md`` and ``build/bench/growth.png``; with ``--readme`` also
puts the table between README's two comments and the figure into ``docs/``.
"""

import json
import shutil
import sys

from harness import BUILD, HERE

FIRST = ("harvest", "end_to_end")
PEERS = ("sae-lens", "sae-lens, autocast", "dictionary_learning", "eai-sparsify")
BEGIN, END = "<!-- benchmarks: make bench ARGS=--readme -->", "<!-- /benchmarks -->"


def read(name):
    """Return one measurement, or nothing if it was not made."""
    file = BUILD / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def quality(row):
    """Say in a few words what both sides reached."""
    q = row.get("quality") or {}
    if "ours" not in q:
        return "; ".join(f"{name} {value:.2g}" for name, value in q.items() if isinstance(value, float))
    said = [f"explained variance {q['ours']['explained_variance']:.3f} / {q['peer']['explained_variance']:.3f}",
            f"L0 {q['ours']['l0']:.1f} / {q['peer']['l0']:.1f}"]
    if "ce_spliced" in q["ours"]:
        said.append("loss + " + " / ".join(f"{q[s]['ce_spliced'] - q[s]['ce_clean']:.3f}" for s in ("ours", "peer")))
    return ", ".join(said)


def number(x):
    """Write three digits, thousands apart."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def table(found):
    """Return the lines of the table."""
    lines = ["| what: ours / peer | ours | peer | ratio | quality: ours / peer |", "| --- | --- | --- | --- | --- |"]
    for name, content in found.items():
        if name == "training":
            continue
        for r in content["rows"]:
            span = f" ({r['range'][0]:.1f}–{r['range'][1]:.1f})" if "range" in r else ""
            lines.append(f"| {r['what']} | {number(r['ours'])} {r['unit']} | {number(r['peer'])} {r['unit']} | "
                         f"**{r['ratio']:.1f}×**{span} | {quality(r)} |")
    return lines


def training_table(content):
    """Return the lines of the table of training: a row for each size and family, a column for each peer."""
    lines = ["", "| training on stored activations | ours, act/s | " + " | ".join(f"/ {name}" for name in PEERS)
             + " | explained variance: ours / sae-lens |", "| --- " * (3 + len(PEERS)) + "|"]
    rows = {}
    for r in content["rows"]:
        rows.setdefault((r["d"], r["width"], r["kind"], r["step"]), {})[r["peer_name"]] = r
    for (d, width, kind, step), peers in rows.items():
        cells = [f"**{peers[p]['ratio']:.1f}×** ({peers[p]['range'][0]:.1f}–{peers[p]['range'][1]:.1f})" if p in peers
                 else "" for p in PEERS]
        q = peers["sae-lens"]["quality"]
        lines.append(f"| {kind}, d = {d}, width {width:,}, {step} | {number(peers['sae-lens']['ours'])} | "
                     + " | ".join(cells)
                     + f" | {q['ours']['explained_variance']:.3f} / {q['peer']['explained_variance']:.3f} |")
    return lines


def summary(found, growth):
    """Say where it was measured, how near the limit, and how cost grows."""
    where = next(iter(found.values()))["machine"]
    reached = {n: x for c in found.values() for n, x in (c.get("roofline") or {}).items() if "sae-lens" not in n}
    made = found.get("training", {}).get("roofline_of_products_made", {})
    lines = [f"{where['processor']}, {where.get('threads')} threads. Medians of five rounds, sides in turn; in "
             "brackets the range over the rounds."]
    if reached:
        share = ", ".join(f"{n} {x:.0%}" + (f" ({made[n]:.0%} by the products it makes)" if n in made else "")
                          for n, x in reached.items() if "bfloat16" in n)
        lines.append(f"Share of the machine's measured matrix-product rate in bfloat16, by the products of the plain "
                     f"algorithm: {share}.")
    ways = found.get("end_to_end", {}).get("rows", [])
    runner = [r for r in ways if r["what"].endswith("/ runner") and "d=128" in r["what"]]
    if runner:
        lines.append("In the table of training sae-lens is its SAETrainer, fed from memory; its runner, which harvests "
                     f"as it trains, gets through {number(runner[0]['samples'] / runner[0]['peer'])} activations a "
                     "second at d = 128 (batchtopk, whole way).")
    if growth:
        slopes = ", ".join(f"{name} {value:.2f}" for name, value in growth["slopes"].items())
        lines.append(f"Slopes on log axes: {slopes}.")
    return lines


def figure(found, growth, file):
    """Draw growth, each curve with the straight line of its slope, and the share of the limit."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    fig, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for ax, (name, points) in zip(axes.flat, growth["curves"].items(), strict=False):
        x = np.array([float(n) for n in points])
        for part, said, marker, color in (("harvest", "harvest", "o", "#0072B2"),
                                          ("train", "training", "s", "#D55E00")):
            if f"{said} by {name}" not in growth["slopes"]:
                continue
            y, slope = np.array([p[part] for p in points.values()]), growth["slopes"][f"{said} by {name}"]
            ax.loglog(x, y, marker=marker, linestyle="", color=color, label=f"{said}: slope {slope:.2f}")
            middle = np.exp(np.log(y).mean() - slope * np.log(x).mean())
            ax.loglog(x, middle * x**slope, color=color, linewidth=1)
        ax.set(xlabel=name, ylabel="seconds", title=f"Cost by {name}")
        ax.set_xticks(x, [f"{n:,.0f}" for n in x])
        ax.set_xticks([], minor=True)
        if name == "tokens":
            memory = ax.twinx()
            memory.plot(x, [b / 1e9 for b in growth["memory"].values()], color="gray", linestyle=":")
            memory.set(ylim=(0, 1), ylabel="peak memory, GB (dotted)")
        ax.legend(loc="upper left", fontsize=9, frameon=False)
    _shares(axes[1, 1], found)
    fig.savefig(file, dpi=100)


def _shares(ax, found):
    """Draw the share of the machine's product rate, by the plain algorithm's products and by those really made."""
    names, bars = [], {"plain algorithm": [], "products made": []}
    for content in found.values():
        for name, share in (content.get("roofline") or {}).items():
            if "bfloat16" in name:
                names.append(name.replace(", bfloat16", ""))
                bars["plain algorithm"].append(share)
                bars["products made"].append(content.get("roofline_of_products_made", {}).get(name, share))
    for k, (said, shares) in enumerate(bars.items()):
        ax.barh([i + 0.4 * k for i in range(len(names))], shares, 0.38, label=said, color=("#999999", "#0072B2")[k])
    ax.axvline(1, color="black", linestyle=":")
    ax.set_yticks([i + 0.2 for i in range(len(names))], names)
    ax.invert_yaxis()
    ax.set(title="Share of the bfloat16 product rate", xlabel="by the products of")
    ax.legend(loc="lower right", fontsize=9, frameon=False)


def main():
    """Write the table and the figure."""
    names = [*FIRST, *sorted({file.stem for file in BUILD.glob("*.json")} - {*FIRST, "growth"})]
    found, growth = {name: c for name in names if (c := read(name))}, read("growth")
    if not found:
        raise SystemExit("nothing was measured yet: make bench")
    parts = [*table(found), *(training_table(found["training"]) if "training" in found else []), ""]
    text = "\n".join([*parts, *summary(found, growth)]) + "\n"
    (BUILD / "table.md").write_text(text, encoding="utf-8")
    print(text)
    if growth:
        figure(found, growth, BUILD / "growth.png")
    if "--readme" in sys.argv:
        readme = HERE.parent / "README.md"
        before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        readme.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
        if growth:
            shutil.copy(BUILD / "growth.png", HERE.parent / "docs" / "growth.png")


if __name__ == "__main__":
    main()
