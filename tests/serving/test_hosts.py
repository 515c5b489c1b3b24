"""The page answers to names of this computer, and to no name that somebody else may have pointed at it."""

import asyncio

import pytest

from bd_diff.serving.hosts import OwnHosts


def status(host, kind="http", names=("photos.example.org",)):
    """What comes back for a request with this Host header."""
    sent = []

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": [] if host is None else [(b"host", host.encode())]}
    asyncio.run(OwnHosts(page, names)(scope, None, send))
    return sent[0].get("status", sent[0].get("code"))


@pytest.mark.parametrize(
    "host", ["localhost:7860", "LOCALHOST", "127.0.0.1:7860", "[::1]:7860", "192.168.0.7", "photos.example.org:443"]
)
def test_own_names_and_addresses_in_numbers_are_answered(host):
    assert status(host) == 200


@pytest.mark.parametrize("host", [None, "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:7860"])
def test_other_names_are_refused(host):
    assert status(host) == 421 and status(host, "websocket") == 1008
