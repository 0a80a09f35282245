"""The event stream, which the first release doesn't have."""

import pytest

from test_orders import call


def test_the_stream_answers():
    if call("/version")[1]["version"] == "v1":
        pytest.skip("v1 has no stream")
    assert call("/stream")[0] == 200
