"""Draw docs/paper.png from docs/paper.json: `python docs/plot_paper.py`."""

import json
import pathlib

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = pathlib.Path(__file__).parent
OPTIMUM = -45.94
WINDOW = 10


def main() -> None:
  """Training of the paper's two networks, and ESS of their joint model against the number of draws."""
  data = json.loads((HERE / "paper.json").read_text())
  figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), constrained_layout=True)
  runs = data["marginal"]
  mean = lambda x: np.convolve(x, np.ones(WINDOW) / WINDOW, "valid")
  left.semilogy(runs["configurations"][WINDOW - 1 :], mean(runs["loss"]) - OPTIMUM)
  left.set(xlabel="configurations seen", ylabel="KL(q||p), mean of ten steps", title="48 spectral layers")
  minutes = left.secondary_xaxis("top", functions=_scale(runs["cpu_seconds"][-1] / 60 / runs["configurations"][-1]))
  minutes.set_xlabel("CPU minutes")
  for step, ess in zip(runs["exact_at"], runs["exact_ess"]):
    left.annotate(f"ESS {ess:.2f}", (step, 0.75), ha="center")
  draws = data["conditional"]
  middle.semilogy(draws["draws"][WINDOW - 1 :], mean(draws["loss"]) - OPTIMUM, label="loss")
  variance = draws["variance"]
  middle.semilogy(variance["draws"], np.array(variance["value"]) / 2, label="half the draw variance")
  middle.legend(frameon=False)
  middle.set(xlabel="draws seen", ylabel="KL(q||p)", title="36 PTCN layers, links of the trivializing flow")
  joint = data["joint"]
  right.errorbar(joint["draws"], joint["ess"], joint["ess_error"], marker="o", label="both networks")
  right.axhline(joint["exact"], color="C1", ls="--", label="exact determinant")
  right.plot(512, 0.1, "k*", ms=11, label="arXiv:2208.03832")
  right.set(
    xscale="log",
    xlabel="draws a configuration",
    ylabel="ESS per configuration",
    ylim=(0, 0.7),
    title=f"joint model, {joint['configurations']} configurations",
  )
  right.legend(frameon=False)
  figure.savefig(HERE / "paper.png", dpi=110)


def _scale(factor: float):
  return (lambda x: np.asarray(x) * factor, lambda x: np.asarray(x) / factor)


if __name__ == "__main__":
  main()
