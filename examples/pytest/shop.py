"""A shop with orders in memory: the system under test of this example."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ORDERS = []


class Shop(BaseHTTPRequestHandler):
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/orders":
            return self.answer(200, ORDERS)
        if self.path == "/version":
            return self.answer(200, {"version": os.environ["SHOP_VERSION"]})
        if self.path == "/stream" and os.environ["SHOP_VERSION"] != "v1":
            return self.answer(200, {"events": []})
        return self.answer(404, {"error": "no such page"})

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if os.environ.get("SHOP_BROKEN") != "true":
            ORDERS.append(order)
        return self.answer(201, order)

    def log_message(self, text, *values):
        print(text % values, flush=True)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Shop).serve_forever()
