"""`check`: what it says of files of other codes, and of damaged ones."""

import json

import numpy as np
import pytest
from fields import DATA, links

from flowqcd import tools
from flowqcd.io import fields, ildg
from flowqcd.stages import check

MILC = DATA / "other-codes" / "milc_v5_l4444"
QDP = DATA / "other-codes" / "qdp_double_from_single.lime"
BARE = DATA / "other-codes" / "julia_bare_record.ildg"


def _said(capsys, plan, *paths):
  status = 0
  try:
    tools.check_files(plan, [str(path) for path in paths])
  except SystemExit as end:
    status = end.code
  return status, capsys.readouterr().out.splitlines()


def test_values_that_other_codes_print(capsys):
  tmlqcd = DATA / "tmlqcd" / "nf2_b1.0_k0.1_apbc.0000.lime"
  status, lines = _said(capsys, check.Plan(json=True), MILC, QDP, tmlqcd)
  milc, qdp, tm = map(json.loads, lines)
  assert status == 0 and {x["state"] for x in (milc, qdp, tm)} == {"ok"}
  # MILC prints three times these.
  assert 3 * milc["plaquette_space"] == pytest.approx(1.7946751560761729, abs=1e-8)
  assert 3 * milc["plaquette_time"] == pytest.approx(1.7744257976067317, abs=1e-8)
  assert milc["link_trace"] == pytest.approx(0.64675873741896339, abs=1e-9)
  assert qdp["link_trace"] == pytest.approx(0.4630322094, abs=1e-9) and "special unitary" in qdp["warnings"][0]
  assert tm["plaquette_stated"] == 0.056279029829 and (tm["beta"], tm["kappa"]) == (1.0, 0.1)
  assert milc["format"] == "MILC version 5" and milc["lattice"] == [4, 4, 4, 4] and milc["checksum"] == "verified"


def test_a_line_has_all_of_it(capsys):
  _, (line,) = _said(capsys, check.Plan(), QDP)
  for text in (
    "ok   ", "qdp_double_from_single.lime: ILDG, SU(3) 4x4x4x4 64 bits, plaquette 0.0382422", "time 0.0", "space 0.0",
    "link trace 0.46303221", "off the group 4.", "checksum verified; warning: links at 64 bits",
  ):  # fmt: skip
    assert text in line


def test_damage_ends_with_status_one_and_does_not_stop_the_others(tmp_path, capsys):
  data = bytearray(MILC.read_bytes())
  data[5000] ^= 1
  (tmp_path / "a").write_bytes(data)
  (tmp_path / "b").write_text("some other text, of nobody's format at all")
  status, lines = _said(capsys, check.Plan(), tmp_path / "a", tmp_path / "b", tmp_path / "c", MILC)
  assert status == 1 and [line.split()[0] for line in lines] == ["damaged", "unreadable", "unreadable", "ok"]
  assert "checksum" in lines[0] and "MILC version 5" in lines[0] and "no known format" in lines[1]
  assert f"{tmp_path / 'c'}: No such file" in lines[2]


def test_strictness(capsys):
  assert _said(capsys, check.Plan(strict=True), MILC)[0] == 0
  status, (line,) = _said(capsys, check.Plan(strict=True), QDP)
  assert status == 1 and line.startswith("damaged") and "special unitary" in line


def test_files_that_do_not_say_their_extents_are_not_called_damaged(tmp_path, capsys):
  status, (line,) = _said(capsys, check.Plan(), BARE)
  assert status == 2 and line.startswith("no extents ")
  assert "extents=4,4,4,4 at 64 bits" in line and line.endswith("say --extents=T,X,Y,Z")
  assert _said(capsys, check.Plan(extents=(4, 4, 4, 4)), BARE)[0] == 0
  # Damage decides, wherever it is.
  assert _said(capsys, check.Plan(), BARE, tmp_path / "none", MILC)[0] == 1


@pytest.mark.parametrize("path", [BARE, MILC, QDP])
def test_files_of_other_extents_are_called_that(capsys, path):
  status, (line,) = _said(capsys, check.Plan(json=True, extents=(8, 8, 4, 4)), path)
  found = json.loads(line)
  assert status == 1 and found["state"] == "other extents" and "(8, 8, 4, 4)" in found["error"]


def test_two_dimensions_have_no_plane_in_space(tmp_path, capsys):
  u = np.asarray(links(1, (4, 6)))
  ildg.write(tmp_path / "a", u)
  _, (line,) = _said(capsys, check.Plan(), tmp_path / "a")
  assert "U(1) 4x6 64 bits" in line and f"time {fields.plaquette(u):.10f}, link" in line


def test_without_files_it_says_what_it_needs():
  with pytest.raises(ValueError, match="name the configuration files"):
    tools.check_files(check.Plan(), [])
