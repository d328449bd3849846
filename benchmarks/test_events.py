"""What does it cost to be told of each token?"""

from __future__ import annotations

import pytest

from .conftest import Against
from .events import EVENTS
from .pairs import Pairs


@pytest.mark.parametrize("contestant", EVENTS, ids=lambda contestant: contestant.name)
def test_events(against: Against, contestant: Pairs) -> None:
    against(contestant)
