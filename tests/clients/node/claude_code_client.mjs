// Claude Code, a coding agent, which finds the gateway by Anthropic's variables; its tools come by the Model Context
// Protocol.
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as exam from "./exam.mjs";

const program = `${process.env.RLAAS_CLIENTS}/node_modules/.bin/claude`;
const server = { command: process.execPath, args: [fileURLToPath(new URL("weather_tool.mjs", import.meta.url))] };
const tools = [
  "--strict-mcp-config",
  "--mcp-config",
  JSON.stringify({ mcpServers: { desk: server } }),
  "--allowedTools",
  "mcp__desk__report_weather",
];
const env = {
  ...process.env,
  ANTHROPIC_BASE_URL: exam.url,
  ANTHROPIC_AUTH_TOKEN: exam.key,
  ANTHROPIC_MODEL: exam.model,
  ANTHROPIC_DEFAULT_HAIKU_MODEL: exam.model,
  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
  ENABLE_TOOL_SEARCH: "false",
};

// Where the agent reports an error it also exits with a status other than 0.
async function run(prompt, ...more) {
  const running = promisify(execFile)(program, ["-p", ...more], { env, maxBuffer: 1e8 });
  running.child.stdin.end(prompt);
  const { stdout } = await running.catch((error) => (error.stdout ? error : Promise.reject(error)));
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

const ask = async (prompt, ...more) => (await run(prompt, "--output-format", "json", ...more))[0];

await exam.sit({
  chat: async () => exam.equal((await ask(exam.hello)).result, exam.answer),
  stream: async () => {
    const lines = await run(exam.hello, "--output-format", "stream-json", "--verbose", "--include-partial-messages");
    const pieces = lines
      .filter((line) => line.event?.delta?.type === "text_delta")
      .map((line) => line.event.delta.text);
    exam.equal(pieces.join(""), exam.answer);
    exam.check(pieces.length > 2, pieces);
  },
  tools: async () => exam.equal((await ask(exam.oneCity, ...tools)).result, exam.oneReport),
  parallel_tools: async () => exam.equal((await ask(exam.twoCities, ...tools)).result, exam.twoReports),
  usage: async () => {
    const { usage } = await ask(exam.hello);
    exam.check(usage.input_tokens > 0 && usage.output_tokens > 0, usage);
  },
  unknown_model: async () => {
    const answered = await ask(exam.hello, "--model", exam.unknown);
    exam.check(
      answered.is_error && answered.api_error_status === 404 && answered.result.includes(exam.unknown),
      answered,
    );
  },
  context_overflow: async () => {
    const answered = await ask(exam.tooLong);
    exam.check(answered.is_error && /prompt is too long/i.test(answered.result), answered);
  },
});
