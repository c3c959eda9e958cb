"""Check configuration files of any format: `check FILES...`.

A line for each file: whether it is whole, its format, group, extents (t, x, ...) and precision; the plaquette, and its
means over planes with and without the time direction; the mean link trace / Nc; how far links are from the group; the
checksum; warnings. Ends with status 1 where a file is damaged or cannot be read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from flowqcd.io import configurations, fields
from flowqcd.io.files import FieldFileError
from flowqcd.runs import progress
from flowqcd.runs.tree import field


@dataclasses.dataclass(frozen=True)
class Plan:
  """How files are checked."""

  json: bool = field(False, "One JSON object a file, a line each, instead of text.")
  strict: bool = field(False, "Any warning counts as damage.")
  extents: tuple[int, ...] = field((), "Extents t,x,y,z that files must have; needed for LIME files of bare data.")


def run(plan: Plan, paths: Sequence[str]) -> bool:
  """Show what each file holds on stdout; True where all are whole."""
  whole = True
  for path in paths:
    found = examine(path, plan.extents or None)
    if plan.strict and found["state"] == "ok" and found["warnings"]:
      found["state"] = "damaged"
    whole &= found["state"] == "ok"
    progress.show(json.dumps(found) if plan.json else line(found))
  return whole


def examine(path: str, extents: tuple[int, ...] | None = None) -> dict[str, Any]:
  """What a file holds, as JSON values. state: ok, damaged, or unreadable (of no known format, or the system's error)."""
  try:
    u, info = configurations.load(path, extents)
  except FieldFileError as error:
    known = configurations.format_of(path) is not None
    return {"file": path, "state": "damaged" if known else "unreadable", "error": str(error)}
  except OSError as error:
    return {"file": path, "state": "unreadable", "error": f"{path}: {error.strerror or error}"}
  planes = fields.plaquettes(u)
  with_time = u.shape[0] - 1
  space = float(planes[with_time:].mean()) if len(planes) > with_time else None
  derived = {
    "plaquette_time": float(planes[:with_time].mean()),
    "plaquette_space": space,
    "link_trace": fields.link_trace(u),
  }
  return {"file": path, "state": "ok"} | info._asdict() | derived


def line(found: dict[str, Any]) -> str:
  """What `examine` has found, for people."""
  state = f"{found['state']:10}  "
  if found["state"] != "ok" and "error" in found:
    return state + found["error"]
  stated = "" if found["plaquette_stated"] is None else f" (stated {found['plaquette_stated']:.10g})"
  space = "" if found["plaquette_space"] is None else f" space {found['plaquette_space']:.10f}"
  parts = [
    f"{found['file']}: {found['format']}",
    f"{found['group']} {'x'.join(map(str, found['lattice']))} {found['precision']} bits",
    f"plaquette {found['plaquette']:.10f}{stated} time {found['plaquette_time']:.10f}{space}",
    f"link trace {found['link_trace']:.10f}",
    f"off the group {found['violation']:.1e}",
    f"checksum {found['checksum']}",
  ]
  theory = [f"{name} {found[name]:g}" for name in ("beta", "kappa") if found[name] is not None]
  warned = [f"warning: {text}" for text in found["warnings"]]
  return state + ", ".join(parts + theory) + "".join(f"; {text}" for text in warned)
