"""A tenth of the campaign."""

import campaign
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("part", list(campaign.PARTS))
def test_nothing_is_read_wrong_and_nothing_is_lost(part):
  run, usual = campaign.PARTS[part]
  assert run(usual // 10) == 0
