import http.server
import json
import queue
import subprocess
import threading
import unittest

from tests.supervisor import DEFAULTS, environment, script


class Desk(http.server.BaseHTTPRequestHandler):
    """The supervisor's side: answers what `server.say` holds, loses every other answer to a post on request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        after = int(self.path.rpartition("=")[2])
        if after == self.server.sent:
            try:
                self.server.lines = self.server.say.get(timeout=0.2)
            except queue.Empty:
                return self.reply(204, b"")
            self.server.sent += 1
        self.reply(200, self.server.lines, **{"xp-batch": str(self.server.sent)})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["authorization"] != "Bearer t":
            return self.reply(401, b"")
        number = int(self.headers["xp-batch"])
        if number > self.server.taken:
            self.server.taken = number
            for line in body.splitlines():
                self.server.heard.put(json.loads(line))
        if self.server.lossy and not self.server.lost == number:
            self.server.lost = number
            self.close_connection = True
            return
        self.reply(204, b"")

    def reply(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A guest that ends while it waits is no news."""


class TheHttpBinding(unittest.TestCase):
    def setUp(self):
        self.server = server = Server(("127.0.0.1", 0), Desk)
        server.say, server.heard = queue.Queue(), queue.Queue()
        server.sent = server.taken = server.lost = 0
        server.lines, server.lossy = b"", False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)

    def say(self, *messages):
        self.server.say.put(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def hear(self, kind):
        while True:
            message = self.server.heard.get(timeout=30)
            if message["type"] == kind:
                return message

    def run_script(self, text, token="t"):
        url = "http://127.0.0.1:%d/v1" % self.server.server_port
        env = environment(XP_PROTOCOL="crosspoint/1", XP_BINDING="http", XP_HTTP_URL=url, XP_HTTP_TOKEN=token)
        return subprocess.Popen(script(text), env=env, stderr=subprocess.PIPE)

    def end(self, process):
        output = process.communicate(timeout=30)[1]
        return process.returncode, output

    def converse(self):
        self.say(dict(DEFAULTS, secrets={"a": "b"}))
        process = self.run_script(
            "xp.main(lambda run: [run.checkpoint(page=2), run.checkpoint(page=3), run.binding, run.secrets])"
        )
        self.assertEqual(self.hear("hello")["v"], 1)
        self.assertEqual(self.hear("state")["seq"], 1)
        self.say({"type": "ack", "seq": 1, "version": 4})
        self.assertEqual(self.hear("state")["patch"], {"page": 3})
        self.say({"type": "unknown"}, {"type": "ack", "seq": 2, "version": 5})
        self.assertEqual(self.hear("result")["value"], [True, True, "http", {"a": "b"}])
        self.assertEqual(self.end(process)[0], 0)
        self.assertTrue(self.server.heard.empty(), "nothing was taken twice")

    def test_a_checkpoint_and_a_result(self):
        self.converse()

    def test_lost_answers_do_no_harm(self):
        self.server.lossy = True
        self.converse()

    def test_a_wish_to_stop(self):
        self.say(DEFAULTS)
        process = self.run_script(
            """
            import time
            def work(run):
                run.info("ready")
                while not run.cancelled:
                    time.sleep(0.01)
                return run.cancel_reason
            xp.main(work)
            """
        )
        self.hear("log")
        self.say({"type": "cancel", "reason": "deadline", "grace_ms": 1000})
        self.assertEqual(self.hear("result")["value"], "deadline")
        self.assertEqual(self.end(process)[0], 0)

    def test_a_wrong_token(self):
        self.say(DEFAULTS)
        code, output = self.end(self.run_script("xp.main(lambda run: 1)", token="guess"))
        self.assertEqual(code, 1, output)
        self.assertIn(b"401", output)
