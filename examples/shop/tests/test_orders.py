"""An ordinary pytest suite: it knows nothing of Phalanx."""

import json
import os
import urllib.request

import pytest

URL = os.environ.get("SHOP_URL", "http://localhost:8000")


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


def test_durability_is_as_configured():
    assert call("/durable")[1]["durable"] == (os.environ.get("APPENDONLY", "no") == "yes")
