"""A stand-in for the web."""

import email.message
import io
from urllib.error import URLError
from urllib.response import addinfourl


class Network:
    """A stand-in for the web behind urllib: what addresses answer, and which were asked."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.asked: list[str] = []

    def open(self, request):
        address = request.full_url
        self.asked.append(address)
        headers = email.message.Message()
        if address in self.redirects:
            headers['Location'] = self.redirects[address]
            response = addinfourl(io.BytesIO(), headers, address, 302)
        elif address in self.answers:
            headers['Content-Length'] = str(len(self.answers[address]))
            response = addinfourl(io.BytesIO(self.answers[address]), headers, address, 200)
        else:
            raise URLError('no route')
        response.msg = ''
        return response
