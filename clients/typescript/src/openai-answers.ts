/** Reads what a call of an OpenAI client asked and what came back, in chat completions and in the Responses API. */
import type { Message, Output } from "./types.js";

/** What the service stores of one answer. */
export type AnswerFields = Pick<Output, "text" | "tool_calls" | "finish_reason" | "usage">;
type ToolCall = NonNullable<Message["tool_calls"]>[number];

/** A JSON object of OpenAI's. Nothing in it is trusted to be there. */
export type Fields = Record<string, unknown>;

/** How one of OpenAI's two APIs writes requests and answers. */
export interface Api {
  readMessages(request: Fields): Message[];
  readTools(request: Fields): Fields[];
  /** The answers in a completion or a response; undefined where `answer` is neither. */
  readAnswers(answer: Fields): AnswerFields[] | undefined;
  /** The answer of a stream, as far as it has come. */
  beginAnswer(): Parts;
}

export interface Parts {
  /** Returns OpenAI's id of the answer. */
  add: (part: Fields) => unknown;
  answers: () => AnswerFields[];
  /** What OpenAI says went wrong. */
  error: () => string | undefined;
}

export const chatApi: Api = {
  readMessages: ({ messages }) => toList(messages).map(toMessage),
  readTools: ({ tools }) => toList(tools),
  readAnswers: ({ choices, usage }) =>
    Array.isArray(choices)
      ? toList(choices).map((choice, index) => {
          const message = toFields(choice.message);
          return toAnswer(readText(message), readCalls(message.tool_calls), choice.finish_reason, index ? null : usage);
        })
      : undefined,
  beginAnswer: beginCompletion,
};

/** What a request continues (`previous_response_id`) stays with OpenAI: its messages are those of this request. */
export const responsesApi: Api = {
  readMessages({ instructions, input }) {
    const messages: Message[] = typeof instructions === "string" ? [{ role: "system", content: instructions }] : [];
    const items = typeof input === "string" ? [{ role: "user", content: input }] : toList(input);
    for (const item of items) addItem(messages, item);
    return messages;
  },
  readTools: ({ tools }) =>
    toList(tools).flatMap(({ type, ...definition }) => (type === "function" ? [{ type, function: definition }] : [])),
  readAnswers({ output, status, incomplete_details, usage }) {
    if (!Array.isArray(output)) return undefined;
    if (status !== undefined && status !== "completed" && status !== "incomplete") return [];
    const { reason } = toFields(incomplete_details);
    const calls = readCalls(output);
    const finishReason = reason === "max_output_tokens" ? "length" : (reason ?? (calls.length ? "tool_calls" : "stop"));
    return [toAnswer(toList(output).map(readItemText).join(""), calls, finishReason, usage)];
  },
  beginAnswer: beginResponse,
};

function beginCompletion(): Parts {
  const collected: { text: string; calls: ToolCall[]; finishReason: unknown }[] = [];
  let counts: unknown;
  return {
    add({ id, choices, usage }) {
      counts = usage ?? counts;
      for (const { index, delta, finish_reason } of toList(choices)) {
        const choice = (collected[Number(index)] ??= { text: "", calls: [], finishReason: null });
        choice.text += readText(toFields(delta));
        choice.finishReason = finish_reason ?? choice.finishReason;
        for (const part of toList(toFields(delta).tool_calls)) {
          const { name, arguments: text } = toFields(part.function);
          const call = (choice.calls[Number(part.index)] ??= toCall("", {}));
          call.id += toText(part.id);
          call.function.name += toText(name);
          call.function.arguments += toText(text);
        }
      }
      return id;
    },
    answers: () =>
      collected.flatMap(({ text, calls, finishReason }, index) =>
        toAnswer(text, readCalls(calls), finishReason, index ? null : counts),
      ),
    error: () => undefined,
  };
}

function beginResponse(): Parts {
  const items: Fields[] = [];
  const texts: string[] = [];
  let latest: Fields = {};
  let failure = "";
  return {
    add({ type, response, output_index, item, delta, code }) {
      const index = Number(output_index);
      if (response) latest = toFields(response);
      if (type === "response.output_text.delta" || type === "response.refusal.delta")
        texts[index] = (texts[index] ?? "") + toText(delta);
      if (type === "response.output_item.done") items[index] = toFields(item);
      failure ||= toText(type === "error" ? code : toFields(latest.error).code);
      return latest.id;
    },
    answers() {
      if (latest.status === "completed" || latest.status === "incomplete")
        return responsesApi.readAnswers(latest) ?? [];
      const answer = toAnswer(texts.join(""), readCalls(items), null, null);
      return answer.text || answer.tool_calls ? [answer] : [];
    },
    error: () => failure || undefined,
  };
}

function toAnswer(text: string, calls: ToolCall[], finishReason: unknown, usage: unknown): AnswerFields {
  const counts = toFields(usage);
  const input_tokens = counts.prompt_tokens ?? counts.input_tokens;
  const output_tokens = counts.completion_tokens ?? counts.output_tokens;
  return {
    text,
    ...(calls.length && { tool_calls: calls }),
    finish_reason: typeof finishReason === "string" ? finishReason : null,
    usage:
      typeof input_tokens === "number" && typeof output_tokens === "number" ? { input_tokens, output_tokens } : null,
  };
}

/** The role developer becomes system, text parts are joined, tools' calls and results stay as they are. */
function toMessage(fields: Fields): Message {
  const { role, tool_call_id } = fields;
  const content = readText(fields);
  if (role === "tool" && typeof tool_call_id === "string") return { role, content, tool_call_id };
  const calls = role === "assistant" ? readCalls(fields.tool_calls) : [];
  return {
    role: role === "developer" || role === "system" ? "system" : role === "assistant" ? "assistant" : "user",
    content,
    ...(calls.length && { tool_calls: calls }),
  };
}

/** Add an item of a request of the Responses API; calls join the assistant's message before them. Others say nothing. */
function addItem(messages: Message[], item: Fields): void {
  const last = messages.at(-1);
  if (item.type === "function_call") {
    const calls = readCalls([item]);
    if (last?.role === "assistant") last.tool_calls = [...(last.tool_calls ?? []), ...calls];
    else messages.push({ role: "assistant", content: "", tool_calls: calls });
  } else if (item.type === "function_call_output")
    messages.push({ role: "tool", content: joinParts(item.output), tool_call_id: toText(item.call_id) });
  else if (item.role) messages.push(toMessage(item));
}

function readText({ content, refusal }: Fields): string {
  return joinParts(content) || toText(refusal);
}

function joinParts(content: unknown): string {
  return Array.isArray(content)
    ? toList(content)
        .map(
          ({ type, text, refusal }) => toText(text) || toText(refusal) || (type === "text" ? "" : `[${toText(type)}]`),
        )
        .join("")
    : toText(content);
}

function readItemText({ type, content }: Fields): string {
  return type === "message" ? joinParts(content) : "";
}

/** The calls of functions among a message's calls, or among the items of a response. */
function readCalls(calls: unknown): ToolCall[] {
  return toList(calls).flatMap((call) =>
    call.function || call.type === "function_call"
      ? [toCall(call.call_id ?? call.id, toFields(call.function ?? call))]
      : [],
  );
}

function toCall(id: unknown, { name, arguments: text }: Fields): ToolCall {
  return { id: toText(id), type: "function", function: { name: toText(name), arguments: toText(text) } };
}

function toList(value: unknown): Fields[] {
  return Array.isArray(value) ? value.filter((item): item is Fields => typeof item === "object" && item !== null) : [];
}

function toFields(value: unknown): Fields {
  return typeof value === "object" && value !== null ? (value as Fields) : {};
}

function toText(value: unknown): string {
  return typeof value === "string" ? value : "";
}
