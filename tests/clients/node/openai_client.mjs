// OpenAI's client, both APIs.
import * as exam from "./exam.mjs";

const { default: OpenAI } = await exam.load("openai");
const { zodResponseFormat, zodTextFormat } = await exam.load("openai/helpers/zod");
const { z } = await exam.load("zod");

const client = new OpenAI({ baseURL: `${exam.url}/v1`, apiKey: exam.key, maxRetries: 0 });
const Person = z.object({ name: z.string(), age: z.number().int() });
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const definition = { name: "report_weather", description: "The weather in a city", parameters };
const asked = (content) => [{ role: "user", content }];
const ask = (content, more = {}) =>
  client.chat.completions.create({ model: exam.model, messages: asked(content), ...more });

async function useTools(question, stream) {
  const tool = { type: "function", function: { ...definition, parse: JSON.parse, function: exam.reportWeather } };
  const runner = client.chat.completions.runTools({
    model: exam.model,
    messages: asked(question),
    tools: [tool],
    stream,
  });
  return runner.finalContent();
}

await exam.sit({
  chat: async () => exam.equal((await ask(exam.hello)).choices[0].message.content, exam.answer),
  stream: async () => {
    const pieces = [];
    const stream = client.chat.completions.stream({ model: exam.model, messages: asked(exam.hello) });
    stream.on("content", (piece) => pieces.push(piece));
    exam.equal(await stream.finalContent(), exam.answer);
    exam.check(pieces.length > 2, pieces);
  },
  tools: async () => exam.equal(await useTools(exam.oneCity, false), exam.oneReport),
  parallel_tools: async () => exam.equal(await useTools(exam.twoCities, true), exam.twoReports),
  structured_output: async () => {
    const format = zodResponseFormat(Person, "person");
    const completion = await client.chat.completions.parse({
      model: exam.model,
      messages: asked(exam.who),
      response_format: format,
    });
    exam.equal(completion.choices[0].message.parsed, exam.person);
  },
  responses: async () => {
    const stream = client.responses.stream({ model: exam.model, input: exam.hello });
    exam.equal((await stream.finalResponse()).output_text, exam.answer);
    const tools = [{ type: "function", strict: true, ...definition }];
    const called = await client.responses.create({ model: exam.model, input: exam.twoCities, tools });
    const results = called.output
      .filter((item) => item.type === "function_call")
      .map((item) => ({
        type: "function_call_output",
        call_id: item.call_id,
        output: exam.reportWeather(JSON.parse(item.arguments)),
      }));
    const history = [{ role: "user", content: exam.twoCities }, ...called.output, ...results];
    exam.equal(
      (await client.responses.create({ model: exam.model, input: history, tools })).output_text,
      exam.twoReports,
    );
    const text = { format: zodTextFormat(Person, "person") };
    exam.equal((await client.responses.parse({ model: exam.model, input: exam.who, text })).output_parsed, exam.person);
  },
  images: () =>
    exam.seeImage(async () => {
      const url = `data:image/png;base64,${exam.image}`;
      const parts = [
        { type: "text", text: exam.whatIsSeen },
        { type: "image_url", image_url: { url } },
      ];
      return (await ask(parts)).choices[0].message.content;
    }),
  usage: async () => {
    exam.check((await ask(exam.hello)).usage.total_tokens > 0, "no usage");
    const stream = client.chat.completions.stream({
      model: exam.model,
      messages: asked(exam.hello),
      stream_options: { include_usage: true },
    });
    exam.check((await stream.totalUsage()).total_tokens > 0, "no usage of a stream");
  },
  unknown_model: () =>
    exam.expectRefusal(
      () => ask(exam.hello, { model: exam.unknown }),
      (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
    ),
  context_overflow: () =>
    exam.expectRefusal(
      () => ask(exam.tooLong),
      (error) => error instanceof OpenAI.BadRequestError && error.code === "context_length_exceeded",
    ),
  interaction_id: async () => (await ask(exam.hello, { "rlaas::interaction_id": exam.interactionId })).id,
  feedback: async () => (await ask(exam.hello)).id,
});
