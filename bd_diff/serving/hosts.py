"""Which names a page answers to. A page of somebody else may point its own name at this computer (DNS rebinding), and
would then read here what its visitor's browser lets it; requests that name such a host are refused.
"""

import ipaddress
import socket
from collections.abc import Iterable


class OwnHosts:
    """ASGI middleware: requests for `localhost`, this computer, an address in numbers, or one of `names` go to `app`.

    Others get status 421 (RFC 9110, section 15.5.20). An address in numbers cannot be rebound.
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
        """Whether a Host header, perhaps with a port, names this page."""
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
