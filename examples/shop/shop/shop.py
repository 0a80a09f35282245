"""A shop that keeps its orders in Redis: the system under test of this example."""

import json
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RELEASE = os.environ["RELEASE"]
HOST, PORT = os.environ["CACHE"].split(":")


def redis(*words):
    """Sends a command to Redis, and returns its answer: a text, or a list of texts."""
    request = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    with socket.create_connection((HOST, int(PORT)), timeout=5) as connection:
        connection.sendall(request.encode())
        answer = connection.makefile("rb")
        return read(answer)


def read(answer):
    kind, rest = (line := answer.readline().decode().strip())[0], line[1:]
    if kind == "$":
        text = answer.read(int(rest) + 2)[:-2]
        return text.decode()
    if kind == "*":
        return [read(answer) for _ in range(int(rest))]
    if kind == "-":
        raise RuntimeError(rest)
    return rest


class Shop(BaseHTTPRequestHandler):
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/version":
            return self.answer(200, {"version": RELEASE})
        if self.path == "/orders":
            return self.answer(200, [json.loads(order) for order in redis("LRANGE", "orders", "0", "-1")])
        if self.path == "/durable":
            return self.answer(200, {"durable": redis("CONFIG", "GET", "appendonly")[1] == "yes"})
        if self.path == "/stream" and RELEASE != "v1":
            return self.answer(200, {"events": []})
        return self.answer(404, {"error": "no such page"})

    def do_POST(self):
        order = self.rfile.read(int(self.headers["Content-Length"])).decode()
        redis("RPUSH", "orders", order)
        return self.answer(201, json.loads(order))

    def log_message(self, text, *values):
        print(text % values, flush=True)


ThreadingHTTPServer(("0.0.0.0", 8000), Shop).serve_forever()
