# The first program of an interpreter that waits for its one run: imports what the script will need, waits for the
# hand-over, and becomes the script. It is given by `-c`, with the arguments
#   modules,with,commas   plain|framed|silent   descriptor or path for its word   script   arguments..
# and says on that descriptor `ready <modules that could not be imported>\n`, and, when nothing can hinder the script any
# more, `!`. If it ends before that, nothing of the run was done. Where it is the first process of its namespace and the
# descriptor is not the script's, its last word is its exit code, one byte, if no other process or thread is left: then
# nobody has to wait until its memory is given back, and it waits to be killed.


def _become_the_script():
    import _signal
    import atexit
    import gc
    import os
    import sys

    modules, speech, channel, *arguments = sys.argv[1:]
    script = arguments[0]

    # As if the script had been the interpreter's argument.
    sys.argv = arguments
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = sys.orig_argv[:1] + arguments
    if sys.path and sys.path[0] == "" and not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    name = os.path.join(os.getcwd(), script) if sys.version_info >= (3, 9) else script

    if channel.isdigit():
        word = int(channel)
    else:
        word = os.open(channel, os.O_WRONLY | os.O_CLOEXEC)
        if speech != "framed":
            os.unlink(channel)
    nothing = os.open(os.devnull, os.O_RDONLY)

    def text_of_script():
        with open(script, "rb") as file:
            return file.read()

    def version_of_script():
        about = os.stat(script)
        return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns

    def translated(text):
        return compile(text, name, "exec", dont_inherit=True)

    missing = []
    for module in modules.split(",") if modules else []:
        try:
            __import__(module)
        except BaseException:
            missing.append(module)
    version, ahead, code = version_of_script(), text_of_script(), None
    if ahead.startswith(b"PK\3\4") or script.endswith(".pyc"):
        # An archive or translated code: the interpreter itself knows what to do with it.
        os._exit(0)
    try:
        code = translated(ahead)
    except Exception:
        # It is told to whom it concerns, in the run.
        pass
    known = set(sys.modules)
    main = type(sys)("__main__")
    space = main.__dict__
    space["__loader__"] = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", name)
    space.update(__annotations__={}, __builtins__=__builtins__, __file__=name, __cached__=None)

    # What is here now stays to the end: the collector need not look at it again.
    gc.collect()
    gc.freeze()

    os.write(word, b"ready %s\n" % ",".join(missing).encode())

    def exactly(count):
        parts = []
        while count:
            part = os.read(0, min(count, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    first = os.read(0, 1 << 14)
    if len(first) < 16:
        first += exactly(16 - len(first))
    length = int.from_bytes(first[:8], "big")
    total = 16 + length + int.from_bytes(first[8:16], "big")
    # What the framed binding says comes behind it, and only after the answer.
    rest = first if len(first) == total else first + exactly(total - len(first))
    head, body = rest[16 : 16 + length].split(b"\0"), rest[16 + length :]

    root, count = head[0] + b"/", int(head[1])
    # `os.environ` without its checks, which take longer than all the rest.
    variables = getattr(os.environ, "_data", os.environb)
    for variable in head[2 : 2 + count]:
        key, _, value = variable.partition(b"=")
        if variables.get(key) != value:
            os.putenv(key, value)
            variables[key] = value
    at = 0
    entries = iter(head[2 + count :])
    for entry, mode, size in zip(entries, entries, entries):
        path = root + entry
        if size == b"-":
            os.mkdir(path, int(mode, 8))
            continue
        end = at + int(size)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, int(mode, 8))
        while at < end:
            at += os.write(file, body[at:end])
        os.close(file)
    if version_of_script() != version:
        text = text_of_script()
        code = code if text == ahead else None
    else:
        text = ahead
    if speech != "framed":
        os.dup2(nothing, 0)
    os.close(nothing)
    last = None
    if speech != "framed" and os.getpid() == 1:
        last = os.dup2(word, os.sysconf("SC_OPEN_MAX") - 1, inheritable=False)
        pipe = os.fstat(last).st_ino
    os.write(word, b"!")
    if speech != "framed" or not channel.isdigit():
        os.close(word)

    def end(status, interrupted):
        """What the interpreter does at its end as far as a script can tell, without the rest, which takes long."""

        def tried(what):
            try:
                what()
                return True
            except BaseException:
                return False

        def flushed():
            streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
            fine = [tried(s.flush) for s in streams if s is not None and not getattr(s, "closed", False)]
            return all(fine)

        def farewell(status):
            if last is None or os.getpid() != 1 or len(sys._current_frames()) != 1:
                return
            if os.fstat(last).st_ino != pipe:
                return
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                # Whoever reads them need not wait either.
                for output in (1, 2):
                    tried(lambda: os.close(output))
                os.write(last, bytes((status,)))
                # To be taken apart keeps a processor busy that whoever reads this needs now. It is killed in a moment.
                while True:
                    _signal.pause()

        def emptied(module):
            names = getattr(module, "__dict__", None)
            if type(names) is not dict:
                return
            for private in (True, False):
                for key in list(names):
                    if type(key) is str and key != "__builtins__" and key.startswith("_") == private:
                        names[key] = None

        fine = True
        try:
            if "threading" in sys.modules:
                tried(sys.modules["threading"]._shutdown)
            tried(atexit._run_exitfuncs)
            fine = flushed()
            opened = sys.modules["_io"]._IOBase
            for thing in gc.get_objects():
                if opened in type(thing).__mro__:
                    tried(thing.flush)
            if len(sys._current_frames()) == 1:
                # Objects come to their end when their last name goes.
                emptied(main)
                for later in sys.modules.keys() - known:
                    emptied(sys.modules.get(later))
                gc.collect()
                fine = flushed() and fine
            if interrupted:
                _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
                os.kill(os.getpid(), _signal.SIGINT)
        finally:
            status = status if fine else 120
            tried(lambda: farewell(status))
            os._exit(status)

    def own(error):
        """Takes our frames off the script's error."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals is globals():
            trace = trace.tb_next
        return error.with_traceback(trace)

    status, interrupted = 0, False
    sys.modules["__main__"] = main
    try:
        if code is None:
            code = translated(text)
        exec(code, space)
    except SystemExit as error:
        status = error.code
    except BaseException as error:
        own(error)
        try:
            sys.excepthook(type(error), error, error.__traceback__)
        except BaseException as another:
            own(another).__context__ = None
            print("Error in sys.excepthook:", file=sys.stderr)
            sys.__excepthook__(type(another), another, another.__traceback__)
            print("\nOriginal exception was:", file=sys.stderr)
            sys.__excepthook__(type(error), error, error.__traceback__)
        interrupted = isinstance(error, KeyboardInterrupt)
        status = 130 if interrupted else 1
    if status is None:
        status = 0
    elif not isinstance(status, int):
        try:
            print(status, file=sys.stderr)
        except BaseException:
            pass
        status = 1
    end(status & 0xFF, interrupted)


_become_the_script()
