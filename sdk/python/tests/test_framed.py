import json
import signal
import unittest

from tests.supervisor import Framed


class TheFramedBinding(unittest.TestCase):
    def test_a_run_knows_what_it_is_about_and_answers(self):
        work = """
            def work(run):
                print("a print is a line of log")
                run.info("hello", orders=3)
                run.tell("Exported 3 orders")
                run.metric("orders", 3)
                run.progress(1, 2, "half")
                return [run.config, run.input, run.state, run.attempt, run.customer, run.mode, run.run_key,
                        run.binding, run.deadline.year, run.secrets, run.remaining() > 1e9]
            xp.main(work)
        """
        for by_path in (False, True):
            guest = Framed(work, by_path=by_path, secrets={"token": "t"})
            code, messages, output = guest.end()
            kinds = [message["type"] for message in messages]
            self.assertEqual((code, kinds), (0, ["hello", "log", "log", "metric", "progress", "result"]), output)
            self.assertEqual(messages[0]["v"], 1)
            self.assertEqual(messages[1]["fields"], {"orders": 3})
            self.assertEqual((messages[1]["audience"], messages[2]["audience"]), ("developer", "customer"))
            key = "0192a000-0000-7000-8000-000000000002"
            expected = [{"size": 5}, {"n": 1}, {"page": 1}, 2, "acme", "normal", key, "framed", 2100, {"token": "t"}, True]
            self.assertEqual(messages[5]["value"], expected)
            self.assertEqual(output, "a print is a line of log\n")

    def test_a_checkpoint_waits_for_its_acknowledgement(self):
        guest = Framed(
            """
            def work(run):
                kept = [run.checkpoint(page=2), run.checkpoint({"page": 3})]
                return kept + [run.state]
            xp.main(work)
            """
        )
        self.assertEqual(guest.read("state"), {"type": "state", "seq": 1, "patch": {"page": 2}})
        guest.say({"type": "something new", "seq": 1})
        guest.say({"type": "ack", "seq": 1, "version": 4})
        self.assertEqual(guest.read("state"), {"type": "state", "seq": 2, "value": {"page": 3}})
        guest.say({"type": "ack", "seq": 2, "version": 5})
        code, messages, _ = guest.end()
        self.assertEqual((code, messages[-1]["value"]), (0, [True, True, {"page": 3}]))

    def test_a_refused_state_raises(self):
        guest = Framed(
            """
            def work(run):
                try:
                    run.checkpoint("x")
                except xp.Refused as refused:
                    return refused.code
            xp.main(work)
            """
        )
        guest.read("state")
        guest.say({"type": "refused", "seq": 1, "code": "too-large", "message": "no"})
        code, messages, _ = guest.end()
        self.assertEqual((code, messages[-1]["value"]), (0, "too-large"))

    def test_without_checkpoints_nothing_is_waited_for(self):
        guest = Framed("xp.main(lambda run: run.checkpoint(1))", features=[])
        code, messages, _ = guest.end()
        self.assertEqual((code, messages[-1]["value"]), (0, False))

    def test_a_lost_supervisor_is_noticed(self):
        guest = Framed("xp.main(lambda run: run.checkpoint(1))")
        guest.read("state")
        guest.process.stdin.close()
        code, messages, _ = guest.end()
        self.assertEqual((code, messages[-1]["code"]), (1, "ConnectionError"))

    def test_a_run_that_is_told_to_stop_saves_and_ends(self):
        work = """
            import time
            def work(run):
                run.on_cancel(lambda reason: run.info(reason))
                run.info("ready")
                while not run.cancelled:
                    time.sleep(0.01)
                run.check()
            xp.main(work)
        """
        guest = Framed(work)
        guest.read("log")
        guest.say({"type": "cancel", "reason": "draining", "grace_ms": 10000})
        guest.process.send_signal(signal.SIGTERM)
        code, messages, _ = guest.end()
        self.assertEqual((code, [m["message"] for m in messages]), (143, ["draining"]))

    def test_failures_say_whether_another_attempt_is_worth_it(self):
        cases = [
            ("raise xp.Later('busy', after=1.5)", 75, {"code": "later", "retryable": True, "retry_after_ms": 1500}),
            ("raise xp.Never('no')", 65, {"code": "never", "retryable": False}),
            ("raise xp.InputInvalid('no')", 65, {"code": "input-invalid", "retryable": False}),
            ("raise xp.ConfigInvalid('no')", 78, {"code": "config-invalid", "retryable": False}),
            ("raise xp.CredentialsRefused('no')", 77, {"code": "credentials-refused", "retryable": False}),
            ("raise xp.Failed('no', code='mine')", 1, {"code": "mine"}),
            ("raise ValueError('no')", 1, {"code": "ValueError", "message": "ValueError: no"}),
        ]
        for text, exit_code, expected in cases:
            code, messages, _ = Framed("def work(run):\n    %s\nxp.main(work)" % text).end()
            error = dict(messages[-1])
            self.assertEqual((code, error.pop("type")), (exit_code, "error"), text)
            error.pop("message") if "message" not in expected else None
            self.assertEqual(error, expected, text)

    def test_another_version_is_refused(self):
        code, messages, output = Framed("xp.main(lambda run: 1)", v=2).end()
        self.assertEqual((code, len(messages)), (78, 1), output)

    def test_the_mode_init_answers_choices(self):
        text = "xp.main(lambda run: 1, init=lambda run: {'list': [{'value': 'a', 'label': 'A'}]})"
        code, messages, _ = Framed(text, mode="init").end()
        self.assertEqual((code, messages[-1]["value"]), (0, {"list": [{"value": "a", "label": "A"}]}))
        code, messages, _ = Framed("xp.main(lambda run: 1)", mode="init").end()
        self.assertEqual((code, messages[-1]["value"]), (0, {}))

    def test_lines_of_logging_and_of_many_threads_stay_whole(self):
        guest = Framed(
            """
            import logging, threading
            def work(run):
                logging.getLogger().addHandler(xp.LogHandler(run))
                logging.getLogger("orders").warning("careful")
                texts = ["x" * 20000 + str(n) for n in range(8)]
                threads = [threading.Thread(target=run.info, args=[text]) for text in texts]
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
            xp.main(work)
            """
        )
        code, messages, output = guest.end()
        self.assertEqual(code, 0, output)
        logs = [message for message in messages if message["type"] == "log"]
        self.assertEqual((logs[0]["level"], logs[0]["message"]), ("warn", "careful"))
        self.assertEqual(sorted(log["message"][-1] for log in logs[1:]), list("01234567"))
        self.assertTrue(json.dumps(messages))
