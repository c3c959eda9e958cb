import jax
import pytest

from flowqcd.runs import session


def test_double_precision_on_tpus_is_refused_in_a_line(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  assert session.dtype("single") == "complex64"
  with pytest.raises(ValueError, match="TPUs have no complex numbers in double precision"):
    session.dtype("double")
