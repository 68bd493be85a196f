import http.server
import json
import os
import socketserver
import tempfile
import threading
import unittest

import crosspoint_sdk as xp
from crosspoint_sdk._http import over_broker


class Broker(http.server.BaseHTTPRequestHandler):
    """Answers with what it got, or with the status that the path asks for."""

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        part = self.path.split("?")[0].rsplit("/", 1)[-1]
        status = int(part) if part.isdigit() else 200
        problem = part == "problem"
        self.send_response(429 if problem else status)
        if problem:
            self.send_header("xp-error", "rate-limited")
        if problem or status == 503:
            self.send_header("retry-after", "7")
        if 300 <= status < 400:
            self.send_header("location", "/elsewhere")
        self.end_headers()
        got = {"method": self.command, "path": self.path, "body": body, "headers": dict(self.headers)}
        got["retry"] = "later"
        self.wfile.write(json.dumps(got).encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *_):
        pass


class Connections(unittest.TestCase):
    def setUp(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broker)
        self.addCleanup(server.server_close)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        self.shop = over_broker("http://127.0.0.1:%d" % server.server_port, "my shop")

    def test_a_request_goes_to_the_broker_under_the_connection(self):
        got = self.shop.post("orders", query={"a": "x y", "b": [1, 2]}, json={"n": 1}, effect="order-1").json()
        self.assertEqual(got["path"], "/c/my%20shop/orders?a=x+y&b=1&b=2")
        self.assertEqual((got["method"], json.loads(got["body"])), ("POST", {"n": 1}))
        headers = {name.lower(): value for name, value in got["headers"].items()}
        self.assertEqual((headers["xp-effect-key"], headers["content-type"]), ("order-1", "application/json"))

    def test_every_status_is_an_answer_and_check_says_what_it_means(self):
        for status, meaning in [
            (401, xp.CredentialsRefused),
            (403, xp.Never),
            (404, xp.Never),
            (429, xp.Later),
            (503, xp.Later),
        ]:
            response = self.shop.request("GET", "/%d" % status)
            self.assertEqual((response.status, response.ok), (status, False))
            with self.assertRaises(meaning) as caught:
                response.check()
            self.assertEqual(caught.exception.after, 7.0 if status == 503 else None)
        redirect = self.shop.get("/302")
        self.assertEqual((redirect.status, redirect.headers["location"]), (302, "/elsewhere"))

    def test_the_brokers_own_problems_are_told_apart(self):
        response = self.shop.request("GET", "/problem")
        self.assertEqual(response.refused_by, "rate-limited")
        with self.assertRaises(xp.Later) as caught:
            response.check()
        self.assertEqual((caught.exception.code, caught.exception.after), ("rate-limited", 7.0))


class AtASocket(socketserver.ThreadingUnixStreamServer):
    def get_request(self):
        return super().get_request()[0], ("socket", 0)


class Sockets(unittest.TestCase):
    def test_the_broker_may_be_at_a_socket(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "network")
            with AtASocket(path, Broker) as server:
                thread = threading.Thread(target=server.serve_forever)
                thread.start()
                got = over_broker("http://localhost", "shop", path).post("/orders", json={"n": 1}).json()
                server.shutdown()
                thread.join()
        self.assertEqual((got["path"], got["body"]), ("/c/shop/orders", '{"n": 1}'))


class Keys(unittest.TestCase):
    def test_an_effect_has_one_key_in_every_attempt(self):
        class Nothing:
            name = "none"

            def attach(self, run):
                pass

        facts = {"run_key": "0192a000-0000-7000-8000-000000000002"}
        keys = {xp.Run(Nothing(), dict(facts, attempt=n)).effect_key("a") for n in (1, 2)}
        self.assertEqual(len(keys), 1)
        self.assertNotIn(xp.Run(Nothing(), facts).effect_key("b"), keys)
