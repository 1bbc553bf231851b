// A server of the Model Context Protocol with one tool, by which a coding agent asks for the weather.
import { createInterface } from "node:readline";

const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tool = { name: "report_weather", description: "The weather in a city", inputSchema: schema };
const ANSWERS = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: "desk", version: "1" },
  }),
  "tools/list": () => ({ tools: [tool] }),
  "tools/call": (call) => ({ content: [{ type: "text", text: `${call.arguments.city}: 7 degrees.` }] }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) continue; // a notification
  const answer =
    method in ANSWERS ? { result: ANSWERS[method](params) } : { error: { code: -32601, message: "no such method" } };
  process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", id, ...answer })}\n`);
}
