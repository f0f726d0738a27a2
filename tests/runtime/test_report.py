"""Errors that nobody can catch are told, and what has to follow follows, whatever the hook does."""

import pytest

import gopoll
from gopoll.runtime.report import tell
from runtime.tools import until


class Failing(Exception):
    """What the hook of a test raises."""


@pytest.fixture
def failing_hook(monkeypatch):
    """Have sys.excepthook note what it is told, and raise what the test says."""
    told = []

    def install(error):
        def hook(kind, exc, traceback):
            told.append(exc)
            raise error

        monkeypatch.setattr("sys.excepthook", hook)
        return told

    return install


@pytest.mark.parametrize("kind", [Failing, SystemExit, KeyboardInterrupt])
def test_a_hook_that_fails_is_told_with_what_it_was_told(failing_hook, capsys, kind):
    error = ValueError("the first")
    told = failing_hook(kind("the hook's"))
    tell(error)
    assert told == [error]
    err = capsys.readouterr().err
    first, second = err.index("Error in sys.excepthook:"), err.index("Original exception was:")
    assert "the hook's" in err[first:second]
    assert "ValueError: the first" in err[second:]


@pytest.mark.parametrize("hook", [None, "missing"])
def test_without_a_hook_the_error_is_printed_all_the_same(monkeypatch, capsys, hook):
    if hook is None:
        monkeypatch.setattr("sys.excepthook", None)
    else:
        monkeypatch.delattr("sys.excepthook")
    tell(ValueError("told"))
    assert "ValueError: told" in capsys.readouterr().err


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_where_nothing_can_be_printed_it_goes_on(failing_hook, monkeypatch, tmp_path, stderr):
    if stderr == "closed":
        stderr = open(tmp_path / "closed", "w")  # noqa: SIM115  (closed by hand)
        stderr.close()
    monkeypatch.setattr("sys.stderr", stderr)
    told = failing_hook(Failing())
    tell(ValueError())
    assert len(told) == 1


def test_an_error_is_told_by_the_hook_alone_where_that_works(monkeypatch, capsys):
    told = []
    monkeypatch.setattr("sys.excepthook", lambda *args: told.append(args))
    error = ValueError()
    tell(error)
    assert told == [(ValueError, error, None)]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", [Failing, SystemExit])
def test_the_end_of_a_context_reaches_all_though_the_hook_fails(run, failing_hook, capsys, kind):
    """The functions that come after, and the goroutines of the contexts above."""
    called = []

    async def main():
        ctx, cancel = gopoll.with_cancel(gopoll.background())
        child, _ = gopoll.with_cancel(ctx)
        g = gopoll.go(gopoll.sleep, 3600, context=ctx)
        child.after_func(lambda: 1 // 0)
        child.after_func(lambda: called.append("next"))
        ctx.after_func(lambda: called.append("above"))
        told = failing_hook(kind())
        cancel("enough")
        with pytest.raises(gopoll.Canceled):
            await g
        assert [type(error) for error in told] == [ZeroDivisionError]

    run(main)
    assert called == ["next", "above"]
    assert "Original exception was:" in capsys.readouterr().err


def test_a_hook_that_fails_ends_no_stall_reports(failing_hook, capsys):
    heard = []
    told = failing_hook(SystemExit())
    stops = [gopoll.on_stall(hook, threshold=0.01) for hook in (len, heard.append)]
    with gopoll.StallWatch() as watch:
        for n in (1, 2):
            watch.tick()
            until(lambda n=n: len(heard) == n)
    for stop in stops:
        stop()
    assert [type(error) for error in told] == [TypeError, TypeError]
    assert capsys.readouterr().err.count("Error in sys.excepthook:") == 2
