// OpenAI's own Node client against the Responses API: a typed stream, then a response that goes on from it; what came,
// in one line of JSON.
import { createRequire } from "node:module";

const OpenAI = createRequire(new URL("../../clients/typescript/package.json", import.meta.url))("openai");
const client = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY, maxRetries: 0 });
const model = process.argv[2];

const stream = client.responses.stream({ model, input: "I was charged twice." });
const types = [];
for await (const event of stream) types.push(event.type);
const first = await stream.finalResponse();
const second = await client.responses.create({ model, input: [...first.output, { role: "user", content: "Thanks." }] });
const third = await client.responses.create({ model, input: "In French.", previous_response_id: second.id });
const refused = await client.responses.create({ model, input: "?", previous_response_id: "resp_1" }).catch((error) => error);
const said = [first, second, third].map((response) => response.output[0].content[0].text);
console.log(JSON.stringify({ types, said, error: { name: refused.constructor.name, status: refused.status, code: refused.code } }));
