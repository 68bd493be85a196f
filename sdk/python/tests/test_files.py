import json
import os
import signal
import subprocess
import tempfile
import unittest

from tests.supervisor import environment, script


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, value):
        with open(self.path(name), "w") as file:
            json.dump(value, file)
        return self.path(name)

    def read(self, name):
        with open(self.path(name)) as file:
            return json.load(file)

    def run_script(self, text, **env):
        return subprocess.run(
            script(text), env=environment(**env), cwd=self.folder, capture_output=True, text=True, timeout=30
        )


class ThePlainBinding(Folder):
    def env(self):
        os.mkdir(self.path("secrets"))
        with open(self.path("secrets/token"), "w") as file:
            file.write("t")
        return {
            "XP_PROTOCOL": "crosspoint/1",
            "XP_CONFIG_FILE": self.write("config.json", {"size": 5}),
            "XP_INPUT_FILE": self.write("input.json", {"n": 1}),
            "XP_STATE_FILE": self.write("state.json", {"page": 1}),
            "XP_TRIGGERS_FILE": self.write("triggers.json", [{"data": {"n": 1}}]),
            "XP_STATE_OUT": self.path("state-out.json"),
            "XP_RESULT_FILE": self.path("result.json"),
            "XP_SECRETS_DIR": self.path("secrets"),
            "XP_RUN_KEY": "0192a000-0000-7000-8000-000000000002",
            "XP_DEADLINE": "2100-01-01T00:00:00Z",
            "XP_CTX_ATTEMPT": "2",
            "XP_CTX_FLOW": "go",
            "XP_CTX_RUN_MODE": "normal",
        }

    def test_a_run_reads_and_leaves_files(self):
        done = self.run_script(
            """
            def work(run):
                run.info("hello", n=1)
                run.warn("careful")
                run.metric("orders", 3)
                run.progress(1, 2, "half")
                kept = run.checkpoint(page=2)
                return [run.config, run.input, run.secrets, run.attempt, run.flow, kept, run.binding]
            xp.main(work)
            """,
            **self.env()
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.read("result.json"), [{"size": 5}, {"n": 1}, {"token": "t"}, 2, "go", False, "plain"])
        self.assertEqual(self.read("state-out.json"), {"page": 2})
        lines = ['hello {"n": 1}', "WARN: careful", "Metric orders: 3 (counter)", "Progress: 1 of 2: half"]
        self.assertEqual(done.stderr.splitlines(), lines)

    def test_exit_codes(self):
        env = self.env()
        for text, code in [("xp.Later('x')", 75), ("xp.CredentialsRefused('x')", 77), ("ValueError('x')", 1)]:
            done = self.run_script("def work(run):\n    raise %s\nxp.main(work)" % text, **env)
            self.assertEqual(done.returncode, code, text)
            self.assertFalse(os.path.exists(self.path("result.json")))

    def test_another_protocol_is_refused(self):
        done = self.run_script("xp.main(lambda run: 1)", XP_PROTOCOL="crosspoint/2", XP_BINDING="framed")
        self.assertEqual(done.returncode, 78, done.stderr)

    def test_a_signal_is_a_wish_to_stop(self):
        text = """
            import time
            def work(run):
                run.on_cancel(lambda reason: run.checkpoint(page=9))
                print("ready", flush=True)
                while not run.cancelled:
                    time.sleep(0.01)
                return run.cancel_reason
            xp.main(work)
        """
        with subprocess.Popen(script(text), env=environment(**self.env()), stdout=subprocess.PIPE) as process:
            self.assertEqual(process.stdout.readline(), b"ready\n")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(30), 0)
        self.assertEqual((self.read("result.json"), self.read("state-out.json")), ("draining", {"page": 9}))


class WithoutASupervisor(Folder):
    def test_a_folder_stands_in(self):
        text = """
            def work(run):
                run.checkpoint({"runs": ((run.state or {}).get("runs") or 0) + 1})
                return [run.config, run.input, run.state, run.binding, run.deadline, run.mode]
            xp.main(work, init=lambda run: "choices")
        """
        first = self.run_script(text)
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertEqual(json.loads(first.stdout), [{}, None, {"runs": 1}, "local", None, "normal"])
        self.write(".crosspoint/config.json", {"a": 1})
        self.write(".crosspoint/input.json", [2])
        second = self.run_script(text)
        self.assertEqual(json.loads(second.stdout), [{"a": 1}, [2], {"runs": 2}, "local", None, "normal"])
        choices = self.run_script(text, XP_CTX_RUN_MODE="init")
        self.assertEqual(json.loads(choices.stdout), "choices")

    def test_connections_are_called_as_they_stand_in_the_folder(self):
        os.mkdir(self.path(".crosspoint"))
        self.write(".crosspoint/connections.json", {"shop": {"base_url": "http://127.0.0.1:1/x"}})
        text = """
            def work(run):
                try:
                    run.connection("shop").get("/orders")
                except xp.Later as error:
                    print(error.code)
                try:
                    run.connection("other").get("/orders")
                except xp.Failed as error:
                    print(error.code)
            xp.main(work)
        """
        done = self.run_script(text)
        self.assertEqual(done.stdout.splitlines()[:2], ["unreachable", "no-broker"], done.stderr)
