"""The event stream, which the first version doesn't have."""

import os

import pytest

from test_orders import call


@pytest.mark.skipif(os.environ["SHOP_VERSION"] == "v1", reason="v1 has no stream")
def test_the_stream_answers():
    assert call("/stream")[0] == 200
