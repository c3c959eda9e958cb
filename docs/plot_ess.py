"""Draw docs/ess.png from docs/ess.json: `python docs/plot_ess.py`."""

import json
import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = pathlib.Path(__file__).parent


def main() -> None:
  """ESS of SU(3) gauge theory on 4^4 against beta, with volume, parameters, and stages of annealing."""
  rows = json.loads((HERE / "ess.json").read_text())
  figure, (left, middle, count, right) = plt.subplots(1, 4, figsize=(15, 3.8), sharey=True, constrained_layout=True)
  curves = [(method, 0, marker) for method, marker in zip(("analytic", "natural gradient", "one for all beta"), "sox")]
  curves += [("annealed", 0, "^"), ("annealed", 0.12, "v"), ("annealed", 0.16, "D")]
  for method, kappa, marker in curves:
    chosen = [r for r in rows if r["method"] == method and r["lattice"] == "4x4x4x4" and r["kappa"] == kappa]
    best = {r["beta"]: r for r in sorted(chosen, key=lambda r: r["ess"])}
    points = [best[beta] for beta in sorted(best)]
    left.errorbar(
      [r["beta"] for r in points],
      [r["ess"] for r in points],
      [r["ess_err"] for r in points],
      marker=marker,
      label=method + (rf", $N_f = 2$, $\kappa = {kappa}$" if kappa else ""),
    )
  left.set(xlabel=r"$\beta$", ylabel="ESS per sample", title=r"SU(3), $4^4$", ylim=(0, 1.05))
  left.legend(frameon=False)
  for beta in (1.0, 2.0):
    chosen = [r for r in rows if r["method"] == "natural gradient" and r["beta"] == beta and not r["kappa"]]
    sites = {"4x4x4x4": 256, "8x8x8x8": 4096}
    points = sorted((sites[r["lattice"]], r["ess"], r["ess_err"]) for r in chosen if r["lattice"] in sites)
    middle.errorbar(*zip(*points), marker="o", label=rf"$\beta = {beta:g}$, trained on $4^4$")
  middle.set(xscale="log", xlabel="lattice", title="other volumes, same parameters", xlim=(180, 5800))
  middle.set_xticks([256, 4096], ["$4^4$", "$8^4$"])
  middle.set_xticks([], minor=True)
  middle.legend(frameon=False)
  for method, marker in (("natural gradient, leading order", "s"), ("natural gradient", "o")):
    chosen = [r for r in rows if r["method"] == method and r["beta"] == 2.0 and not r["kappa"]]
    points = sorted((r["parameters"], r["ess"], r["ess_err"]) for r in chosen if r["lattice"] == "4x4x4x4")
    count.errorbar(*zip(*points), marker=marker, label="Wilson flow" if "order" in method else "next order too")
  count.set(xscale="log", xlabel="parameters", title=r"trained at $\beta = 2$, $4^4$")
  count.legend(frameon=False)
  for beta in (2.0, 3.0, 4.0):
    for moves, marker, style in (("hmc", "^", "--"), ("heatbath", "o", "-")):
      chosen = [r for r in rows if r["method"] == "annealed" and r["beta"] == beta and not r["kappa"]]
      chosen = [r for r in chosen if r["lattice"] == "4x4x4x4"]
      points = sorted((r["stages"], r["ess"], r["ess_err"]) for r in chosen if r["moves"] == moves)
      if points:
        colour = f"C{beta:.0f}"
        right.errorbar(*zip(*points), marker=marker, ls=style, color=colour, label=rf"$\beta = {beta:g}$, {moves}")
  ticks = [8, 16, 32, 64, 128]
  right.set(xscale="log", xlabel="stages of annealing", title=r"from Haar with fitted flows, $4^4$")
  right.set_xticks(ticks, map(str, ticks))
  right.set_xticks([], minor=True)
  right.legend(frameon=False)
  figure.savefig(HERE / "ess.png", dpi=110)


if __name__ == "__main__":
  main()
