// OpenAI's own Node client against the API, driven line by line: each line of stdin is a call's arguments, each line of
// stdout what came.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const OpenAI = createRequire(new URL("../../clients/typescript/package.json", import.meta.url))("openai");
const client = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY, maxRetries: 0 });
const say = (kind, value) => process.stdout.write(JSON.stringify({ kind, value }) + "\n");

for await (const line of createInterface({ input: process.stdin })) {
  try {
    const answer = await client.chat.completions.create(JSON.parse(line));
    if (!(Symbol.asyncIterator in answer)) say("completion", answer);
    else {
      for await (const chunk of answer) say("chunk", chunk);
      say("end", null);
    }
  } catch (error) {
    say("error", { name: error.constructor.name, status: error.status ?? null, code: error.code ?? null, message: error.message });
  }
}
