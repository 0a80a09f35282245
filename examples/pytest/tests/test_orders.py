"""An ordinary pytest suite: it knows nothing of Phalanx."""

import json
import os
import urllib.request

import pytest

URL = os.environ["SHOP_URL"]


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data=data)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, json.load(answer)


@pytest.mark.parametrize("sku", ["book", "lamp"])
def test_an_order_is_stored(sku):
    status, order = call("/orders", {"sku": sku})
    assert (status, order["sku"]) == (201, sku)
    assert {"sku": sku} in call("/orders")[1]


def test_the_version_is_told():
    assert call("/version")[1]["version"] == os.environ["SHOP_VERSION"]
