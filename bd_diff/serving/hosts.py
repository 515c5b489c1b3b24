"""Protects the local page from DNS rebinding: requests for a host name that is not its own are refused.

In DNS rebinding a page of somebody else points its own name at this computer, and could then read here whatever its
visitor's browser may.
"""

import ipaddress
import socket
from collections.abc import Iterable


class OwnHosts:
    """ASGI middleware: passes requests for `localhost`, this computer, a numeric address or one of `names` on to `app`.

    Others get status 421 (RFC 9110, section 15.5.20). A numeric address cannot be rebound.
    """

    def __init__(self, app, names: Iterable[str] = ()):
        self.app = app
        self.names = {name.lower().rstrip(".") for name in ("localhost", socket.gethostname(), *names)}

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan" or self.knows(dict(scope["headers"]).get(b"host", b"").decode("latin-1")):
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        body = b"this page is not known by that name; bd-diff demo --name makes it known\n"
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 421, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def knows(self, host: str) -> bool:
        """Whether a Host header, with or without a port, names this page."""
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        if name.rstrip(".") in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
