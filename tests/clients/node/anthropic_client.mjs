// Anthropic's client.
import * as exam from "./exam.mjs";

const { default: Anthropic } = await exam.load("@anthropic-ai/sdk");
const { betaZodTool } = await exam.load("@anthropic-ai/sdk/helpers/beta/zod");
const { zodOutputFormat } = await exam.load("@anthropic-ai/sdk/helpers/zod");
const { z } = await exam.load("zod");

const client = new Anthropic({ baseURL: exam.url, apiKey: exam.key, maxRetries: 0 });
const Person = z.object({ name: z.string(), age: z.number().int() });
const request = (content, more = {}) => ({
  model: exam.model,
  max_tokens: 200,
  messages: [{ role: "user", content }],
  ...more,
});
const ask = (content, more) => client.messages.create(request(content, more));

async function useTools(question, stream) {
  const tool = betaZodTool({
    name: "report_weather",
    description: "The weather in a city",
    inputSchema: z.object({ city: z.string() }),
    run: exam.reportWeather,
  });
  const message = await client.beta.messages.toolRunner(request(question, { tools: [tool], stream })).runUntilDone();
  return message.content.map((block) => block.text).join("");
}

await exam.sit({
  chat: async () => exam.equal((await ask(exam.hello)).content[0].text, exam.answer),
  stream: async () => {
    const pieces = [];
    const stream = client.messages.stream(request(exam.hello)).on("text", (piece) => pieces.push(piece));
    exam.equal(await stream.finalText(), exam.answer);
    exam.check(pieces.length > 2, pieces);
  },
  tools: async () => exam.equal(await useTools(exam.oneCity, false), exam.oneReport),
  parallel_tools: async () => exam.equal(await useTools(exam.twoCities, true), exam.twoReports),
  structured_output: async () => {
    const parsed = await client.messages.parse(
      request(exam.who, { output_config: { format: zodOutputFormat(Person) } }),
    );
    exam.equal(parsed.parsed_output, exam.person);
  },
  images: () =>
    exam.seeImage(async () => {
      const source = { type: "base64", media_type: "image/png", data: exam.image };
      return (
        await ask([
          { type: "text", text: exam.whatIsSeen },
          { type: "image", source },
        ])
      ).content[0].text;
    }),
  usage: async () => {
    const { usage } = await ask(exam.hello);
    exam.check(usage.input_tokens > 0 && usage.output_tokens > 0, usage);
    const streamed = (await client.messages.stream(request(exam.hello)).finalMessage()).usage;
    exam.check(streamed.input_tokens > 0 && streamed.output_tokens > 0, streamed);
  },
  unknown_model: () =>
    exam.expectRefusal(
      () => ask(exam.hello, { model: exam.unknown }),
      (error) => error instanceof Anthropic.NotFoundError,
    ),
  context_overflow: () =>
    exam.expectRefusal(
      () => ask(exam.tooLong),
      (error) => error instanceof Anthropic.BadRequestError && /prompt is too long|context/.test(error.message),
    ),
  interaction_id: async () => (await ask(exam.hello, { "rlaas::interaction_id": exam.interactionId })).id,
  feedback: async () => (await ask(exam.hello)).id,
});
