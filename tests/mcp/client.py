"""Calls tools of an MCP server with the official client. Arguments: the command of the server. Standard input: a list of
[tool, arguments] as JSON. Standard output: what the server says of itself and its tools, and each result."""

import asyncio
import json
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError


async def main():
    server = StdioServerParameters(command=sys.argv[1], args=sys.argv[2:])
    said = {"results": []}
    async with stdio_client(server) as (read, write):
        async with ClientSession(read, write) as session:
            about = await session.initialize()
            said["server"] = about.model_dump(mode="json", by_alias=True)
            listed = await session.list_tools()
            said["tools"] = [tool.model_dump(mode="json", by_alias=True) for tool in listed.tools]
            for name, arguments in json.load(sys.stdin):
                try:
                    result = await session.call_tool(name, arguments)
                    result = result.model_dump(mode="json", by_alias=True)
                    text = "".join(it["text"] for it in result["content"])
                    said["results"].append({"text": text, "error": bool(result.get("isError"))})
                except MCPError as error:
                    said["results"].append({"text": str(error), "error": "protocol"})
    print(json.dumps(said))


asyncio.run(main())
