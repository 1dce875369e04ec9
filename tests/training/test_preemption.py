"""What a notice to stop interrupts, and what it does not."""

import os
import signal

from uem_t5x.training.preemption import PreemptionNotice


def told_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_notice_does_not_interrupt_what_the_first_one_ends():
    left = []

    def measure():
        try:
            told_to_stop()
            left.append("measured to the end")
        finally:
            told_to_stop()
            left.append("in order")

    with PreemptionNotice() as notice:
        assert notice.interrupts(measure) is None
        told_to_stop()  # as in the middle of saving
        assert notice.was_received and notice.is_due()
        assert notice.interrupts(measure) is None  # which is not begun
    assert left == ["in order"]


def test_a_second_notice_in_the_handler_of_the_first():
    """Where it would be left on to interrupt: just before it is turned off."""

    class ToldTwice(PreemptionNotice):
        _turned_on = False

        @property
        def _may_interrupt(self):
            return self._turned_on

        @_may_interrupt.setter
        def _may_interrupt(self, value):
            was_on, told = self._turned_on, self._received
            if was_on and not value and not told:
                told_to_stop()
            self._turned_on = value

    with ToldTwice() as notice:
        assert notice.interrupts(lambda: 1) is None
        told_to_stop()  # as in the middle of saving
        assert notice.was_received
