import json

import pytest

from flowqcd.stages import coverage


def test_table_and_files(tmp_path, capsys):
  plan = coverage.Plan(output=str(tmp_path / "a"), repetitions=3, seeds=2, cases="^2 streams")
  rows = coverage.run(plan)
  assert [row.found.quantity for row in rows] == ["mean of stream means"] and rows[0].found.num == 6
  assert "| mean of stream means: 2 streams |" in capsys.readouterr().out
  (line,) = json.loads((tmp_path / "a" / "coverage.json").read_text())["rows"]
  assert line["case"] == "2 streams" and line["inside_68"] == rows[0].found.inside_68
  assert "### mean of stream means\n" in (tmp_path / "a" / "coverage.md").read_text()
  assert coverage.run(plan) == rows


def test_every_case_runs():
  for title, simulation in coverage.cases():
    if not any(n in title for n in ("4096", "x 2000", "x 500", "tau_int 4")):
      assert coverage.coverage.measure(simulation, 2, 1), title


def test_no_such_case(tmp_path):
  with pytest.raises(ValueError, match="title that matches 'nonsense'"):
    coverage.run(coverage.Plan(output=str(tmp_path), cases="nonsense"))
