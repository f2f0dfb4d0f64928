"""Tool calls over the Model Context Protocol, recorded. The server is in the process here."""

import asyncio

from mcp import Client
from mcp.server.mcpserver import MCPServer

import loopkit

server = MCPServer("bank")


@server.tool()
def balance(account: str) -> str:
    """Look a balance up."""
    return f"{account} has 12 euros"


async def main() -> None:
    async with Client(server) as client:
        with loopkit.span("answer", task="triage"):
            print((await client.call_tool("balance", {"account": "ana"})).structured_content)


loopkit.init(service="helpdesk")
loopkit.instrument("mcp")
asyncio.run(main())

span = loopkit.open_store().spans(kind="tool")[0]
print(span.name, span.input, span.output, span.attributes["mcp.server.name"])
