"""Draw docs/scaling.png: `python tests/benchmarks/plot_scaling.py runs/bench/one.json docs/scaling.png`."""

import json
import re
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

VOLUME = {
  "test_gauge_force_volume": "gauge force",
  "test_schur_volume": "$M M^\\dagger$ of the Schur complement",
  "test_flow_volume": "trivializing flow, a sample",
  "test_hmc_volume-0": "HMC, pure gauge, a trajectory",
  "test_hmc_volume-2": "HMC, $N_f = 2$, a trajectory",
}
BATCH = {"test_flow_batch": "trivializing flow, a sample", "test_hmc_batch": "HMC, $N_f = 2$, a trajectory"}


def series(benchmarks, name):
  """Sorted (number, ms) of the rows whose name is `name[number]`, or `test[flavours-number]` for `test-flavours`."""
  base, _, first = name.partition("-")
  pattern = re.compile(rf"{base}\[{first + '-' if first else ''}(\d+)\]$")
  found = [(pattern.search(row["name"]), row["extra_info"]["wall ms"]) for row in benchmarks]
  return sorted((int(match.group(1)), ms) for match, ms in found if match)


def main(source, destination):
  with open(source) as file:
    benchmarks = json.load(file)["benchmarks"]
  figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
  for name, label in VOLUME.items():
    points = series(benchmarks, name)
    left.loglog([n**4 for n, _ in points], [ms for _, ms in points], "o-", label=label)
  reference = series(benchmarks, "test_hmc_volume-0")
  volumes = [n**4 for n, _ in reference]
  left.loglog(
    volumes, [0.4 * reference[0][1] * v / volumes[0] for v in volumes], "k:", label="proportional to the volume"
  )
  left.set_xticks(volumes, [f"${n}^4$" for n, _ in reference])
  left.minorticks_off()
  left.set(xlabel="lattice", ylabel="ms", title="one field", ylim=(0.05, 5e4))
  for name, label in BATCH.items():
    points = series(benchmarks, name)
    right.semilogx([n for n, _ in points], [ms for _, ms in points], "o-", label=label)
  batches = [n for n, _ in points]
  right.set_xticks(batches, map(str, batches))
  right.minorticks_off()
  right.set(xlabel="fields at once", ylabel="ms for each", ylim=(0, None), title="$4^4$")
  for axes in (left, right):
    axes.legend(frameon=False, fontsize=8)
  figure.savefig(destination, dpi=150)


if __name__ == "__main__":
  main(*sys.argv[1:])
