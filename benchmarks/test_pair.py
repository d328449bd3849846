"""What does it cost to take a token and give it back, when there is one?"""

from __future__ import annotations

import pytest

from .conftest import Against
from .pairs import BARE, LIMIT, OTHER_THINGS, OURS, PEERS, Pairs

EVERYBODY = (LIMIT, BARE, *OURS, *PEERS, *OTHER_THINGS)


@pytest.mark.parametrize("contestant", EVERYBODY, ids=lambda contestant: contestant.name)
def test_pair(against: Against, contestant: Pairs) -> None:
    against(contestant)
