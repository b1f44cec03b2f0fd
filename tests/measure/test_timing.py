"""Alternating rounds and their arithmetic, with made-up functions and clock."""

import gc

import pytest

from lightvit_mm.measure.timing import alternate, summarise


class Machine:
    """A clock that advances only by the given durations of the calls."""

    def __init__(self, **durations):
        self.durations, self.now, self.calls = durations, 0.0, []

    def clock(self):
        return self.now

    def candidates(self):
        return {name: lambda name=name: self.run(name) for name in self.durations}

    def run(self, name):
        assert not self.calls or gc.isenabled() is (len(self.calls) < 2 * len(self.durations))
        self.calls.append(name)
        self.now += self.durations[name]


def test_turns():
    machine = Machine(a=1.0, b=2.0, c=4.0)
    seconds = alternate(machine.candidates(), rounds=4, clock=machine.clock)
    assert ''.join(machine.calls) == 'abcabc' + 'abc' + 'bca' + 'cab' + 'abc'
    assert seconds == {'a': [1.0] * 4, 'b': [2.0] * 4, 'c': [4.0] * 4}
    assert gc.isenabled()


def test_goes_on_for_the_time_asked():
    machine = Machine(a=1.0, b=2.0)
    seconds = alternate(machine.candidates(), rounds=2, min_seconds=10, clock=machine.clock)
    assert len(seconds['a']) == 4  # 3 s per round


def test_rest_is_not_timed(monkeypatch):
    machine = Machine(a=1.0, b=2.0)
    rests = []

    def sleep(seconds):
        rests.append(len(machine.calls))
        machine.now += seconds

    monkeypatch.setattr('time.sleep', sleep)
    seconds = alternate(machine.candidates(), rounds=2, pause=5.0, clock=machine.clock)
    assert seconds == {'a': [1.0] * 2, 'b': [2.0] * 2}
    assert rests == [4, 5, 6, 7]  # before each timed call


def test_nothing_to_time():
    with pytest.raises(ValueError, match='0 candidates'):
        alternate({})


def test_figures():
    seconds = {'base': [4.0, 4.4, 3.6, 4.0, 40.0], 'fast': [2.0, 2.2, 1.8, 2.0, 20.0]}
    base, fast = summarise(seconds, 'base')
    assert (base.name, base.rounds, base.median, base.ratio) == ('base', 5, 4.0, 1.0)
    assert base.interval == (1.0, 1.0)
    assert fast.median == 2.0
    assert fast.quartiles == (2.0, 2.2)
    assert fast.spread == pytest.approx(0.1)
    # A slowdown of whole rounds cancels.
    assert fast.ratio == 2.0
    assert fast.interval == pytest.approx((2.0, 2.0))


def test_interval_of_noise():
    seconds = {'base': [1.0, 2.0] * 10, 'other': [2.0, 1.0] * 10}
    other = summarise(seconds, 'base')[1]
    assert other.ratio == 1.0
    low, high = other.interval
    assert low < 1 < high
