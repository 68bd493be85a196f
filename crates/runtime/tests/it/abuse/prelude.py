import ctypes, errno, json, os, signal, socket, struct, sys, time

FACTS = json.loads(os.environ['FACTS'])
SYS = FACTS['sys']
LEVEL = FACTS['level']
REFUSED = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EAFNOSUPPORT}
libc = ctypes.CDLL(None, use_errno=True)
got = []


def reached(what):
    got.append(str(what)[:200])


def ask(number, *args):
    """A system call: its answer, or minus the error."""
    ctypes.set_errno(0)
    answer = libc.syscall(*[ctypes.c_long(one) if isinstance(one, int) else one for one in (number, *args)])
    return -ctypes.get_errno() if answer == -1 else answer


def call(name, *args):
    """A system call that was not refused has reached the kernel."""
    if name in SYS:
        answer = ask(SYS[name], *args)
        if -answer not in REFUSED:
            reached(f'{name}: {answer}')


def tries(what, attempt):
    """What does not fail has got somewhere, unless it answers None."""
    try:
        answer = attempt()
        if answer is not None:
            reached(f'{what}: {answer!r}')
    except OSError:
        pass


def in_child(attempt):
    """Makes it in a process of its own, which may die of it; answers how that ended."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = attempt() or 0
        except BaseException:
            pass
        os._exit(code)
    return os.waitpid(child, 0)[1]


def read(path, most=4096):
    with open(path, 'rb') as file:
        return file.read(most) or None


def processes():
    return [int(name) for name in os.listdir('/proc') if name.isdigit()]


def end():
    with open(os.environ['XP_RESULT_FILE'], 'w') as file:
        json.dump(got, file)


import atexit
atexit.register(end)
