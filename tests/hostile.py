"""Input that means harm, for property tests: nasty values, damaged files, and a bound on the time and memory they take."""

import resource
import signal
from contextlib import contextmanager

import psutil
from conftest import examples
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

GIB = 2**30


SECONDS = 20  # for one sweep file, on a machine that is busy


@contextmanager
def bounded(seconds=SECONDS, gibibytes=1.5):
    """Ends the body with an error when it takes longer, or asks for more memory than the process has plus so much."""

    def late(number, frame):
        raise TimeoutError(f"took more than {seconds} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    room = psutil.Process().memory_info().vms + int(gibibytes * GIB)
    resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


HUGE = [10**9, 10**18, 10**30, -1, 0, 2**63, 1e308, 1e-320, float("nan"), float("inf"), -0.5]


NASTY = [
    "",
    " ",
    "..",
    "../../evil",
    "/etc/passwd",
    "/dev/zero",
    "~",
    "$(touch evil)",
    "`touch evil`; touch evil",
    "a\nb",
    "\x1b[2J",
    "<script>alert(1)</script>",
    "\\input{/etc/passwd}",
    "%s%n{0}{__class__}",
    "[bold red]x[/]",
    "\u202e\u0000",
    "ё" * 300,
    "x" * 5000,
    "__class__",
    "os.system",
    "sam3_unet",
    "none",
    "all",
    "last:99999999999999999999",
    "every:0",
    "pretrained",
    "random",
    "cuda",
    "cross_entropy",
]


leaves = st.one_of(st.sampled_from(HUGE), st.sampled_from(NASTY), st.none(), st.booleans(), st.integers(-3, 70))


values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["name", "size", "0", "a.b", "width"]), inner)
    ),
    max_leaves=4,
)


def places(node, path=()):
    """Every path in nested mappings and lists."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


HOSTILE = settings(
    max_examples=examples(250),
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking would run for minutes; what is found is short enough
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damaged(draw, content):
    """Bytes with up to three stretches overwritten, cut out, doubled or put in; or with the end missing."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.one_of(st.integers(0, min(300, len(content))), st.integers(0, len(content))))
        length = draw(st.sampled_from([0, 1, 2, 4, 30]))
        piece = draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff" * 4, b"\0" * 8, b"\x7f\xff\xff\xff", b"A" * 300]))
        )
        content = (
            content[:at] + draw(st.sampled_from([piece, piece, b"", content[at : at + 40]])) + content[at + length :]
        )
    return content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
