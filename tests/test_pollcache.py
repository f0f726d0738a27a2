"""Poll descriptors: every throw with its text, generations, tags, reuse, deadlines."""

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gopoll._throw
from gopoll.errors import InternalError
from helpers.child import registrations
from helpers.polls import park_word

READ, WRITE, BOTH = 1, 2, 3
NIL, READY, WAIT = 0, 1, 2
A, B = 4096, 8192  # waiters: any number above WAIT
EPOLLERR = 0x8
EVENT_ERR = 3  # pollErrNotPollable
OPEN_MASK = 0x8000201D

SOURCE = Path(__file__).resolve().parent.parent / "src" / "gopoll"


@pytest.fixture
def desc(server, fd):
    rc, desc = server.open(fd)
    assert rc == 0
    return desc


# -- throws ----------------------------------------------------------------------------------------


def reopen_with(name):
    def provoke(server, desc, fd):
        assert desc.discard() == 0
        setattr(desc, name, WAIT)
        return server.open(fd)[0]

    return provoke


def close_with(name):
    def provoke(server, desc, fd):
        assert desc.unblock() == 0
        setattr(desc, name, A)
        return desc.close()

    return provoke


def double_wait(server, desc, fd):
    park_word(desc, READ, A)
    return desc.wait(READ)


def corrupted(server, desc, fd):
    park_word(desc, READ, A)
    return desc.resume(READ)


def evict_twice(server, desc, fd):
    assert desc.unblock() == 0
    return desc.unblock()


def fire_with(mode, **spoilt):
    def provoke(server, desc, fd):
        assert desc.set_deadline(100, mode) == 0
        [entry] = server.due(100)
        for name, value in spoilt.items():
            setattr(desc, name, value)
        return server.deadline_impl(entry, 100)

    return provoke


THROWS = [
    ("runtime: blocked write on free polldesc", reopen_with("wg")),
    ("runtime: blocked read on free polldesc", reopen_with("rg")),
    ("runtime: close polldesc w/o unblock", lambda server, desc, fd: desc.close()),
    ("runtime: blocked write on closing polldesc", close_with("wg")),
    ("runtime: blocked read on closing polldesc", close_with("rg")),
    ("runtime: unblock on closing polldesc", evict_twice),
    ("runtime: double wait", double_wait),
    ("runtime: corrupted polldesc", corrupted),
    ("runtime: inconsistent read deadline", fire_with(READ, rd=0)),
    ("runtime: inconsistent read deadline", fire_with(READ, rrun=False)),
    ("runtime: inconsistent write deadline", fire_with(WRITE, wd=-1)),
    ("runtime: inconsistent write deadline", fire_with(WRITE, wrun=False)),
]


@pytest.mark.parametrize(("text", "provoke"), THROWS, ids=[f"{t[9:]}-{n}" for n, (t, _) in
                                                           enumerate(THROWS)])  # fmt: skip
def test_corrupted_state_throws_with_go_s_text(probe, server, desc, fd, text, provoke):
    code = provoke(server, desc, fd)
    assert code < -10000
    with pytest.raises(InternalError) as caught:
        probe.raise_throw(code)
    assert str(caught.value) == text
    assert isinstance(caught.value, SystemError)


def test_a_write_side_is_looked_at_before_a_read_side(probe, server, desc, fd):
    """Which text comes first when both are wrong, as in Go."""
    desc.unblock()
    desc.rg = desc.wg = A
    with pytest.raises(InternalError, match="blocked write on closing"):
        probe.raise_throw(desc.close())


def test_a_throw_comes_out_of_a_thread_that_python_never_saw(probe, desc):
    code, caught = probe.close_on_a_strange_thread(desc)
    assert code < -10000
    assert [(type(exc), str(exc)) for exc in caught] == [
        (InternalError, "runtime: close polldesc w/o unblock")
    ]


def test_the_process_works_on_after_a_throw(server, desc):
    assert desc.close() < -10000
    park_word(desc, READ, A)
    assert desc.unblock() == 0
    assert server.netpoll() == [A]
    assert desc.close() == 0


GO_TEXTS = {
    "runtime: netpollinit failed",
    "runtime: eventfd failed",
    "runtime: epollctl failed",
    "runtime: netpollBreak write failed",
    "runtime: netpoll failed",
    "runtime: netpoll: eventfd ready for something unexpected",
    "taggedPointerPack",
    *(text for text, _ in THROWS),
}


def test_every_text_of_go_is_there_once():
    texts = gopoll._throw.throw_texts()
    assert len(set(texts.values())) == len(texts), "two codes share a text"
    assert set(texts.values()) >= GO_TEXTS
    tree = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py*"))
    for text in texts.values():
        found = re.findall(f'"{re.escape(text)}"', tree)
        assert len(found) == 1, f"{text!r} stands {len(found)} times in the tree"


def test_every_throw_code_has_a_text(probe):
    for code in gopoll._throw.throw_texts():
        with pytest.raises(InternalError) as caught:
            probe.raise_throw(code)
        assert "unknown throw" not in str(caught.value)


# -- tagged pointers -------------------------------------------------------------------------------


@given(slot=st.integers(0, 2**40 - 1), tag=st.integers(0, 2**24 - 1))
def test_an_address_and_a_tag_survive_packing(probe, slot, tag):
    data = probe.pack(slot << 8, tag)
    assert probe.unpack(data) == slot << 8
    assert data & 0xFFFFFF == tag


@given(slot=st.integers(0, 2**40 - 1), tag=st.integers(2**24, 2**64 - 1))
def test_a_long_tag_does_not_reach_the_address(probe, slot, tag):
    assert probe.unpack(probe.pack(slot << 8, tag)) == slot << 8


def test_an_address_beyond_48_bits_is_noticed(probe):
    """What does not come back throws taggedPointerPack when its block is made."""
    assert probe.unpack(probe.pack(1 << 48, 0)) != 1 << 48


def test_the_words_of_the_poller_itself_have_the_null_address(probe):
    assert probe.unpack(0) == probe.unpack(1) == 0


# -- memory ----------------------------------------------------------------------------------------


def test_a_freed_descriptor_is_the_next_one_used(server, fd):
    others = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(3)]
    try:
        descs = [server.open(n)[1] for n in others]
        addresses = [desc.address for desc in descs]
        for desc in descs:
            assert desc.discard() == 0
        again = [server.open(n)[1] for n in others]
        assert [desc.address for desc in again] == addresses[::-1]
    finally:
        for n in others:
            os.close(n)


def test_descriptors_share_no_cache_line_and_blocks_are_never_returned(server):
    """P4: the memory of a descriptor stays one's."""
    fds = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(40)]
    try:
        descs = [server.open(n)[1] for n in fds]
        addresses = {desc.address for desc in descs}
        assert len(addresses) == 40
        assert all(address % 256 == 0 for address in addresses)
        assert (server.blocks, server.in_use) == (3, 40)
        for desc in descs:
            desc.discard()
        assert (server.blocks, server.in_use) == (3, 0)
        again = [server.open(n)[1] for n in fds]
        assert {desc.address for desc in again} == addresses
        assert server.blocks == 3
    finally:
        for n in fds:
            os.close(n)


# -- generations -----------------------------------------------------------------------------------


def check_generation(server, fd, seq):
    """Open, meet an error-only event and an old one, close: all that a generation is for."""
    rc, desc = server.open(fd)
    assert rc == 0
    assert desc.fdseq == seq
    assert desc.wait(READ) == -1, "an error of an earlier life is still there"
    assert server.event(EPOLLERR, desc.data) == []
    assert desc.wait(READ) == 0, "told before a second try"
    assert desc.wait(READ) == EVENT_ERR, f"eventErr is lost at generation {seq}"
    assert desc.check_error(READ) == desc.check_error(WRITE) == 0
    data = desc.data
    assert desc.discard() == 0
    assert server.event(EPOLLERR, data) == -1, "an event of a closed descriptor was believed"
    return data


def test_an_error_alone_is_told_to_a_reader_that_has_tried_since(server, desc):
    """P7: a new event asks for another try; one that says more takes it back."""
    assert server.event(EPOLLERR, desc.data) == []
    assert desc.reset(READ) == 0
    assert [desc.wait(READ) for _ in range(3)] == [0, EVENT_ERR, EVENT_ERR]
    assert server.event(EPOLLERR, desc.data) == []
    assert desc.reset(READ) == 0
    assert [desc.wait(READ) for _ in range(2)] == [0, EVENT_ERR]
    assert server.event(EPOLLERR | 0x1, desc.data) == []
    assert desc.reset(READ) == 0
    park_word(desc, READ, A)
    assert server.event(EPOLLERR, desc.data) == [A]
    assert (desc.resume(READ), desc.check_error(READ)) == (1, 0), "not told before the next try"


def test_every_reuse_to_65536_has_a_generation_of_its_own(server, fd):
    """Go's 32-bit word loses eventErr from here on."""
    for seq in range(1, 65_534):
        rc, desc = server.open(fd)
        assert (rc, desc.fdseq) == (0, seq)
        assert desc.discard() == 0
    for seq in range(65_534, 65_539):
        check_generation(server, fd, seq)


@pytest.mark.parametrize("seq", [65_535, 65_536, 2**20 - 1, 2**20, 2**24 - 1])
def test_an_error_is_reported_at_any_generation(server, desc, fd, seq):
    desc.fdseq = seq - 1
    desc.discard()
    old = check_generation(server, fd, seq)
    following = seq + 1 if seq < 2**24 - 1 else 1  # 0 would be the poller's own word
    check_generation(server, fd, following)
    rc, desc = server.open(fd)
    assert (rc, server.event(0x1, old)) == (0, -1)
    assert desc.rg == NIL


def test_an_event_of_an_earlier_generation_is_dropped_and_counted(server):
    """P4: close(2) before pollClose, with a dup left: the registration outlives its descriptor."""
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    rc, desc = server.open(fd)
    assert rc == 0
    assert server.netpoll() == []  # the first OUT
    dup = os.dup(fd)
    other = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        os.close(fd)
        assert desc.discard() == 0
        rc, again = server.open(other)
        assert (rc, again.address) == (0, desc.address)
        server.netpoll()
        before = server.stats
        park_word(again, READ, A)
        os.eventfd_write(dup, 1)
        assert server.netpoll() == []
        assert again.rg == A
        assert server.stats["stale"] == before["stale"] + 1
        assert server.stats["events"] == before["events"] + 1
        assert again.discard() == 0
        assert server.netpoll() == [A]
    finally:
        os.close(dup)
        os.close(other)


# -- opening ---------------------------------------------------------------------------------------


def test_a_bad_descriptor_gives_its_errno(server):
    rc, desc = server.open(999_999)
    assert rc == errno.EBADF
    assert desc.discard() == 0
    assert server.in_use == 0


def test_a_second_registration_leaves_the_first_alone(server, desc, fd):
    """EEXIST: the clean-up of the second must not take the first one's registration away."""
    park_word(desc, READ, A)
    rc, second = server.open(fd)
    assert rc == errno.EEXIST
    assert second.discard() == 0
    assert registrations(server.epfd)[fd] == (OPEN_MASK, desc.data)
    os.eventfd_write(fd, 1)
    assert server.netpoll() == [A]


# -- deadlines -------------------------------------------------------------------------------------


def test_an_expired_deadline_that_is_moved_counts_no_more(server, desc):
    park_word(desc, READ, A)
    desc.set_deadline(-1, READ)
    assert server.take() == [A]
    assert desc.check_error(READ) == 2
    desc.set_deadline(10**18, READ)
    assert desc.check_error(READ) == 0
    park_word(desc, READ, B)


def test_a_deadline_that_is_moved_later_does_not_fire_at_its_old_time(server, desc):
    park_word(desc, READ, A)
    desc.set_deadline(100, READ)
    desc.set_deadline(200, READ)
    assert server.due(199) == []
    [entry] = server.due(200)
    assert server.deadline_impl(entry, 200) == [A]


@pytest.mark.parametrize("to", [0, 50])
def test_a_popped_deadline_that_is_another_by_then_is_ignored(server, desc, to):
    """T2: it has been cleared, or armed again for an earlier time."""
    park_word(desc, READ, A)
    desc.set_deadline(100, READ)
    [entry] = server.due(100)
    desc.set_deadline(to, READ)
    assert server.deadline_impl(entry, 100) == []
    assert [server.deadline_impl(due, 100) for due in server.due(100)] == ([[A]] if to else [])


def test_a_timer_moved_while_it_is_popped_is_armed_again_and_tells_a_sleeper(server, desc):
    """P5: the thread that popped it may not poll again; the one that sleeps must know."""
    desc.set_deadline(100, READ)
    [entry] = server.due(100)
    desc.set_deadline(10**18, READ)
    server.watched = 1
    assert server.deadline_impl(entry, 100) == []
    assert desc.armed == (True, False)
    assert server.wakesig == 1, "a poller that sleeps for ever was not told"


def test_a_deadline_on_a_closing_descriptor_is_ignored(server, desc):
    desc.unblock()
    assert desc.set_deadline(10**18, BOTH) == 0
    assert server.timers == 0


def test_closing_takes_the_timers_along(server, desc):
    desc.set_deadline(10**18, BOTH)
    assert server.timers == 2
    desc.unblock()
    assert server.timers == 0


# -- netpoll ---------------------------------------------------------------------------------------


def test_one_event_for_two_waiters_and_room_for_one(server, desc, fd):
    """What does not fit comes with the next call."""
    server.netpoll()
    assert desc.wait(WRITE) == 0  # a fresh eventfd is writable: take that readiness
    park_word(desc, READ, A)
    park_word(desc, WRITE, B)
    server.arm(fd, OPEN_MASK, desc.data)  # MOD looks again: the eventfd is writable
    os.eventfd_write(fd, 1)
    assert server.netpoll(cap=1) == [A]
    assert server.netpoll(cap=1) == [B]
    assert server.waiters == 0


def test_a_throw_loses_nothing_that_was_found_beside_it(server, desc):
    """Three deadlines pass at once and the second is corrupted: the others' waiters come out."""
    fds = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(2)]
    first, last = (server.open(n)[1] for n in fds)
    park_word(first, READ, A)
    park_word(last, READ, B)
    for when, one in enumerate((first, desc, last), 1):
        one.set_deadline(when, READ)
    desc.rrun = False
    assert server.netpoll() < -10000
    assert sorted(server.netpoll()) == [A, B]
    assert server.waiters == 0
    for n in fds:
        os.close(n)


def test_a_throw_about_the_break_loses_no_edge(server, desc, fd):
    """The events of the same batch are gone from the kernel: they must be acted on all the same."""
    park_word(desc, READ, A)
    server.arm(server.eventfd, 0x5, 0)
    os.eventfd_write(fd, 1)
    assert server.netpoll() < -10000
    server.arm(server.eventfd, 0x1, 0)
    assert server.netpoll() == [A]
