"""What the stages of a run store, and the settings that each of it hangs on: a table.

A setting that a line of the table names, or whose group it names, decides what is in the file; FREE ones only say how
much, how fast, or what is shown, and may change while a run goes on.
"""

from __future__ import annotations

from flowqcd.runs import marginals
from flowqcd.runs.products import Product, Settings

FREE = frozenset(
  f"{group}.{name}"
  for group, names in {
    "training": "num_steps chunk round max_bad_steps evaluate_every num_evaluate checkpoint_every keep",
    "conditional": "draws chunk",
    "conditional_training": "chunk evaluate_every num_evaluate checkpoint_every keep",
    "hmc": "trajectories",
    "measurement": "chunk bins extents",
  }.items()
  for name in names.split()
)

_PHASES = ("conditional_training.steps", "conditional_training.batches", "conditional_training.rates")
_CHAINS = ("chains.json", "chains.md", "chains.png")
_REPORT = ("summary.json", "report.md", "figure[23].p??", "log_weights.p??", "pion.p??", "draws.p??")


def table(links: marginals.Choice, is_trained: bool, is_joint: bool, moves: str) -> dict[str, Product]:
  """All that a run with this flow of links may store, by name.

  is_trained: the flow of links has steps of training. is_joint: there is a model of pseudofermions. moves: of annealing.
  """
  flow = _flow(links)
  training = (*flow, "optimizer.", "natural.", "training.")
  start = "training.start_from", "training.precision"
  # What is done with the trained flow hangs on how long it was trained.
  drawn = (*(training if is_trained else (*flow, *start)), "training.num_steps", "training.round")
  pseudofermions = ("conditional.", "conditional_training.") if is_joint else ("conditional.kind",)
  samples = (*drawn, "precision", *pseudofermions)
  theory = "seed", "precision", "theory."
  streams = "hmc.streams", "hmc.thermalisation", "hmc.thin"
  annealing = (*flow, *start, "precision", "annealing.", *(("hmc.",) if moves == "hmc" else ()))
  found = {
    "checkpoints": Product(
      ("checkpoints",), training, beside=("training.jsonl", "training.png", "model.safetensors")
    ),
    "conditional_checkpoints": Product(
      ("conditional_checkpoints",), (*drawn, "conditional.", "conditional_training."),
      beside=("conditional.jsonl", "conditional.png", "conditional.safetensors"), growing=_PHASES, grows=_go_on,
    ),
    "flow": Product(("flow",), samples, beside=_REPORT),
    "flow-draws": Product(("flow-draws",), samples, beside=_REPORT),
    "flow_steps.json": Product(("flow_steps.json",), (*drawn, "precision"), quick=True),
    "haar.json": Product(("haar.json",), (*theory, "sampling.num_haar"), quick=True),
    "hmc": Product(("hmc",), (*theory, "hmc."), beside=(*_REPORT, *_CHAINS)),
    "heatbath": Product(("heatbath",), (*theory, *streams, "sweeps.overrelaxation"), beside=_CHAINS),
    "link_flow": Product(("link_flow",), (*theory, *streams, "sweeps."), beside=_CHAINS),
    "annealed": Product(
      ("annealed", "path.json"), annealing, beside=("path_steps.json", "annealed.json", "annealed.png")
    ),
  }  # fmt: skip
  beside = {
    "flow": ("wilson_flow.json", *_REPORT),
    "hmc": (*_REPORT, *_CHAINS),
    "heatbath": _CHAINS,
    "link_flow": _CHAINS,
  }
  for name, made in beside.items():
    measured = f"{name}-measured"
    found[measured] = Product((measured,), (*found[name].settings, "measurement."), made)
  return found


def _flow(links: marginals.Choice) -> tuple[str, ...]:
  group = marginals.kind(links.name).group
  return ("seed", "theory.", "marginal", "prior.", "family.", *((f"{group}.",) if group else ()))


def _go_on(there: Settings, here: Settings) -> bool:
  """Whether the phases of training here begin as those there, of which the last may be shorter."""
  old, new = ([phase for phase in zip(*(x[name] for name in _PHASES)) if phase[0]] for x in (there, here))
  if not old:
    return True
  last = len(old) - 1
  return (
    len(new) > last and new[:last] == old[:last] and new[last][1:] == old[last][1:] and new[last][0] >= old[last][0]
  )
