// Vercel's AI SDK by one of its providers: `openai` (the Responses API, unless it is told otherwise), `openai-compatible`
// or `anthropic`, named by the first argument.
import * as exam from "./exam.mjs";

const { APICallError, generateText, isStepCount, Output, streamText, tool } = await exam.load("ai");
const { z } = await exam.load("zod");

// Adds fields to the body where the provider has no place for them.
const fetchWith = (fields) => (url, init) =>
  fetch(url, { ...init, body: JSON.stringify({ ...JSON.parse(init.body), ...fields }) });
const place = (fields) => ({ baseURL: `${exam.url}/v1`, apiKey: exam.key, fetch: fetchWith(fields) });
const PROVIDERS = {
  openai: async (fields) => (await exam.load("@ai-sdk/openai")).createOpenAI(place(fields)),
  "openai-compatible": async (fields) =>
    (await exam.load("@ai-sdk/openai-compatible")).createOpenAICompatible({
      name: "rlaas",
      includeUsage: true,
      supportsStructuredOutputs: true,
      ...place(fields),
    }),
  anthropic: async (fields) => (await exam.load("@ai-sdk/anthropic")).createAnthropic(place(fields)),
};
const name = process.argv[2];
const makeProvider = async (fields = {}) => PROVIDERS[name](fields);
const byChat = (provider, model = exam.model) => (name === "openai" ? provider.chat(model) : provider(model));
const provider = await makeProvider();
const model = byChat(provider);
const weather = tool({
  description: "The weather in a city",
  inputSchema: z.object({ city: z.string() }),
  execute: exam.reportWeather,
});
const onError = () => {};

const useTools = async (prompt, asked = model) =>
  (
    await generateText({
      model: asked,
      prompt,
      tools: { reportWeather: weather },
      stopWhen: isStepCount(3),
      maxRetries: 0,
    })
  ).text;

async function streamWithTools(prompt, asked = model) {
  const result = streamText({
    model: asked,
    prompt,
    tools: { reportWeather: weather },
    stopWhen: isStepCount(3),
    maxRetries: 0,
    onError,
  });
  return result.text;
}

async function findPerson(asked = model) {
  const output = Output.object({ schema: z.object({ name: z.string(), age: z.number().int() }) });
  exam.equal((await generateText({ model: asked, prompt: exam.who, output, maxRetries: 0 })).output, exam.person);
}

async function stream(asked = model) {
  const pieces = [];
  for await (const piece of streamText({ model: asked, prompt: exam.hello, maxRetries: 0, onError }).textStream)
    pieces.push(piece);
  exam.equal(pieces.join(""), exam.answer);
  exam.check(pieces.length > 2, pieces);
}

const ask = (prompt, asked = model) => generateText({ model: asked, prompt, maxRetries: 0 });
const isOf = (status, error, words) =>
  APICallError.isInstance(error) && error.statusCode === status && words.test(`${error.message} ${error.responseBody}`);

await exam.sit({
  chat: async () => exam.equal((await ask(exam.hello)).text, exam.answer),
  stream: () => stream(),
  tools: async () => exam.equal(await useTools(exam.oneCity), exam.oneReport),
  parallel_tools: async () => exam.equal(await streamWithTools(exam.twoCities), exam.twoReports),
  structured_output: () => findPerson(),
  ...(name === "openai" && {
    responses: async () => {
      const byResponses = provider(exam.model);
      await stream(byResponses);
      exam.equal(await useTools(exam.twoCities, byResponses), exam.twoReports);
      exam.equal(await streamWithTools(exam.twoCities, byResponses), exam.twoReports);
      await findPerson(byResponses);
    },
  }),
  images: () =>
    exam.seeImage(async () => {
      const content = [
        { type: "text", text: exam.whatIsSeen },
        { type: "file", data: exam.image, mediaType: "image/png" },
      ];
      return (await generateText({ model, messages: [{ role: "user", content }], maxRetries: 0 })).text;
    }),
  usage: async () => {
    const { usage } = await ask(exam.hello);
    exam.check(usage.inputTokens > 0 && usage.outputTokens > 0, usage);
    const streamed = await streamText({ model, prompt: exam.hello, maxRetries: 0, onError }).usage;
    exam.check(streamed.inputTokens > 0 && streamed.outputTokens > 0, streamed);
  },
  unknown_model: () =>
    exam.expectRefusal(
      () => ask(exam.hello, byChat(provider, exam.unknown)),
      (error) => isOf(404, error, /model/),
    ),
  context_overflow: () =>
    exam.expectRefusal(
      () => ask(exam.tooLong),
      (error) => isOf(400, error, /context_length_exceeded|prompt is too long/),
    ),
  interaction_id: async () =>
    (await ask(exam.hello, byChat(await makeProvider({ "rlaas::interaction_id": exam.interactionId })))).response.id,
  feedback: async () => (await ask(exam.hello)).response.id,
});
