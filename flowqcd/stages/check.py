"""Check configuration files of any format: `check FILES...`.

A line for each file: whether it is whole, its format, group, extents (t, x, ...) and precision; the plaquette, and its
means over planes with and without the time direction; the mean link trace / Nc; how far links are from the group; the
checksum; warnings. Ends with status 1 where a file is damaged, cannot be read, or has other extents than --extents says;
and else with status 2 where one has not been read because it needs --extents.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from flowqcd.io import configurations, fields
from flowqcd.io.files import FieldFileError, NoExtentsError, OtherExtentsError
from flowqcd.runs import progress
from flowqcd.runs.tree import field


@dataclasses.dataclass(frozen=True)
class Plan:
  """How files are checked."""

  json: bool = field(False, "One JSON object a file, a line each, instead of text.")
  strict: bool = field(False, "Any warning counts as damage.")
  extents: tuple[int, ...] = field((), "Extents t,x,y,z that files must have; needed for LIME files of bare data.")


OK, NO_EXTENTS = "ok", "no extents"


def run(plan: Plan, paths: Sequence[str]) -> int:
  """Show what each file holds on stdout; the status to end with.

  0 where all are whole, 2 where all that is wrong is that some need extents, 1 otherwise.
  """
  states = set()
  for path in paths:
    found = examine(path, plan.extents or None)
    if plan.strict and found["state"] == OK and found["warnings"]:
      found["state"] = "damaged"
    states.add(found["state"])
    progress.show(json.dumps(found) if plan.json else line(found))
  if states - {OK, NO_EXTENTS}:
    return 1
  return 2 if NO_EXTENTS in states else 0


def examine(path: str, extents: tuple[int, ...] | None = None) -> dict[str, Any]:
  """What a file holds, as JSON values.

  state: ok; damaged; unreadable (of no known format, or the system's error); other extents than these; no extents, which
  the file does not say and which must be given.
  """
  try:
    u, info = configurations.load(path, extents)
  except NoExtentsError as error:
    return {"file": path, "state": NO_EXTENTS, "error": f"{error}: say --extents=T,X,Y,Z"}
  except OtherExtentsError as error:
    return {"file": path, "state": "other extents", "error": str(error)}
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
  return {"file": path, "state": OK} | info._asdict() | derived


def line(found: dict[str, Any]) -> str:
  """What `examine` has found, for people."""
  state = f"{found['state']:13}  "
  if "error" in found:
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
