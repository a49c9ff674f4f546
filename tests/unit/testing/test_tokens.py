"""The token endpoint lets go of whom it holds."""

import http.client
import threading
import urllib.request

import pytest

from azpool.testing.tokens import TokenEndpoint


class EndedMeanwhile(TokenEndpoint):
    """Is ended by another thread as soon as an answer's delay is looked at."""

    end = None
    looked = False

    @property
    def delay_seconds(self):
        if self.end is not None and not self.looked:
            self.looked = True
            threading.Thread(target=self.end).start()
            self.ended.wait(0.2)
        return self.seconds

    @delay_seconds.setter
    def delay_seconds(self, seconds):
        self.seconds = seconds


@pytest.mark.parametrize("how", ["stop", "hurry"])
def test_who_waits_is_let_go_however_the_moments_fall(how):
    endpoint = EndedMeanwhile(delay_seconds=50)
    endpoint.ended = threading.Event()

    def end():
        getattr(endpoint, how)()
        endpoint.ended.set()

    with endpoint:
        endpoint.end = end
        with urllib.request.urlopen(f"{endpoint.url}/?resource=x", timeout=20) as answer:
            assert answer.status == 200
    assert endpoint.ended.wait(20)
    assert endpoint.requests


def test_one_that_is_stopped_refuses_and_comes_back_on_its_port():
    with TokenEndpoint() as endpoint:
        port = endpoint.port
        endpoint.stop()
        with pytest.raises(OSError):
            http.client.HTTPConnection("127.0.0.1", port, timeout=5).request("GET", "/")
        endpoint.start()
        assert endpoint.port == port
