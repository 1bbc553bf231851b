/** Traces an existing OpenAI client: each chat completion becomes an interaction and its output. */
import type { Rlaas } from "./client.js";
import { firstOutputId, interactionId } from "./ids.js";
import type { Message, Output } from "./types.js";

/** What each traced call is reported with. Wrap the client again for another thread or user: that costs nothing. */
export interface Tracing {
  rlaas: Pick<Rlaas, "logInteraction" | "logOutput">;
  skill: string;
  thread_id?: string;
  user_id?: string;
  tags?: string[];
}

/** The ids under which a traced call is reported; feedback needs one of them. */
export interface Trace {
  interaction_id: string;
  output_id: string;
}

interface OpenAILike {
  chat: { completions: { create: (...request: never[]) => unknown; parse?: (...request: never[]) => unknown } };
}
interface CompletionRequest {
  model?: string;
  messages?: ({ role: string; content?: unknown } | null)[];
}
interface CompletionAnswer {
  choices?: {
    message?: { content?: string | null };
    delta?: { content?: string | null };
    finish_reason?: string | null;
  }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
}
/**
 * The promise of the `openai` client: `asResponse` gives the raw response, and `_thenUnwrap` maps the answer to a
 * promise that still has both.
 */
type CompletionPromise = Promise<object> & {
  asResponse?: () => Promise<unknown>;
  _thenUnwrap?: (map: (answer: object) => object) => CompletionPromise;
};
type Create = (body: CompletionRequest, ...rest: unknown[]) => CompletionPromise;
type OutputFields = Pick<Output, "text" | "finish_reason" | "usage">;

const traces = new WeakMap<object, Trace>();

/** The ids of a completion or a stream that a wrapped client returned; undefined for any other object. */
export function traceOf(answer: object): Trace | undefined {
  return traces.get(answer);
}

/**
 * `client` with its `chat.completions.create`, streaming or not, and `.parse` traced. The original client stays as it
 * is, and the calls return and throw what they did before. A stream is reported when it ends, even early. Calls with a
 * model of RLaaS (`rlaas::<skill>`) are not reported: the service records them itself. Text is reported; images, audio
 * and tool calls are not. The tokens of a stream are reported where the call's `stream_options` have `include_usage`.
 */
export function wrapOpenAI<C extends OpenAILike>(client: C, tracing: Tracing): C {
  const { completions } = client.chat;
  const trace = (method: (...request: never[]) => unknown): Create => {
    const original = method.bind(completions) as unknown as Create;
    return (body, ...rest) => {
      const promise = original(body, ...rest);
      if (body.model?.startsWith("rlaas::")) return promise;
      const call = new Call(tracing, body);
      (promise.asResponse?.() ?? promise).catch((error: unknown) => {
        call.reportError(error);
      });
      const map = (answer: object): object => call.reportAnswer(answer);
      return promise._thenUnwrap?.(map) ?? promise.then(map);
    };
  };
  const { create, parse } = completions;
  const tracedCompletions = overlay(completions, { create: trace(create), ...(parse && { parse: trace(parse) }) });
  return overlay(client, { chat: overlay(client.chat, { completions: tracedCompletions }) });
}

/** One traced call, from its arguments to its report. */
class Call {
  private readonly ids: Trace;
  private readonly messages: Message[];
  private readonly model: string | null;
  private readonly startedAt = new Date();

  constructor(
    private readonly tracing: Tracing,
    body: CompletionRequest,
  ) {
    const interaction_id = interactionId();
    this.ids = { interaction_id, output_id: firstOutputId(interaction_id) };
    this.model = body.model ?? null;
    this.messages = Array.isArray(body.messages)
      ? body.messages.flatMap((message) => (message ? [toMessage(message)] : []))
      : [];
  }

  /** Report the interaction alone, with the error's name. */
  reportError(error: unknown): void {
    this.report({ error: readErrorName(error) });
  }

  /** Report a completion now and a stream when it ends; do not report anything else. Returns `answer`. */
  reportAnswer(answer: object): object {
    const { choices, usage } = answer as CompletionAnswer;
    if (Symbol.asyncIterator in answer) {
      traces.set(answer, this.ids);
      this.reportAtEnd(answer as AsyncIterable<object>);
    } else if (choices) {
      traces.set(answer, this.ids);
      const [first] = choices;
      const text = first?.message?.content ?? "";
      this.report({}, { text, finish_reason: first?.finish_reason ?? null, usage: toUsage(usage) });
    }
    return answer;
  }

  /** Replace the stream's iterator, from which its own tee() and toReadableStream() read too. */
  private reportAtEnd(stream: AsyncIterable<object> & { iterator?: () => AsyncIterator<object> }): void {
    const read = (stream.iterator ?? stream[Symbol.asyncIterator]).bind(stream);
    const end = (metadata: Record<string, string>, output: OutputFields): void => {
      this.report(metadata, output);
    };
    async function* readAndReport(): AsyncGenerator<object> {
      const output: OutputFields = { text: "", finish_reason: null, usage: null };
      const metadata: Record<string, string> = {};
      try {
        for await (const chunk of { [Symbol.asyncIterator]: read }) {
          const { choices, usage } = chunk as CompletionAnswer;
          output.text += choices?.[0]?.delta?.content ?? "";
          output.finish_reason = choices?.[0]?.finish_reason ?? output.finish_reason ?? null;
          output.usage = toUsage(usage) ?? output.usage ?? null;
          yield chunk;
        }
      } catch (error) {
        metadata.error = readErrorName(error);
        throw error;
      } finally {
        end(metadata, output);
      }
    }
    for (const name of ["iterator", Symbol.asyncIterator])
      Object.defineProperty(stream, name, { value: readAndReport });
  }

  private report(metadata: Record<string, string>, output?: OutputFields): void {
    const { rlaas, ...about } = this.tracing;
    const { messages, startedAt } = this;
    const { interaction_id, output_id } = this.ids;
    try {
      rlaas.logInteraction({
        ...about,
        interaction_id,
        messages,
        occurred_at: startedAt.toISOString(),
        metadata: { model: this.model, ...metadata },
      });
      const latency_ms = Math.max(0, Date.now() - startedAt.getTime());
      if (output) rlaas.logOutput({ ...about, ...output, interaction_id, output_id, latency_ms, messages });
    } catch {
      // Only a strict client throws. The host's call to OpenAI has succeeded, so the host gets its answer.
    }
  }
}

/** `target` with the properties in `values` in place of its own. */
function overlay<T extends object>(target: T, values: Record<PropertyKey, unknown>): T {
  return new Proxy(target, {
    get(original, name) {
      if (Object.hasOwn(values, name)) return values[name];
      const value: unknown = Reflect.get(original, name, original);
      return typeof value === "function" ? (value.bind(original) as unknown) : value; // private fields need the original
    },
  });
}

function readErrorName(error: unknown): string {
  return error instanceof Error ? error.constructor.name : "unknown";
}

function toUsage(usage: CompletionAnswer["usage"]): { input_tokens: number; output_tokens: number } | null {
  return usage ? { input_tokens: usage.prompt_tokens, output_tokens: usage.completion_tokens } : null;
}

function toMessage({ role, content }: { role: string; content?: unknown }): Message {
  const text = Array.isArray(content)
    ? content.map((part: { text?: unknown } | null) => (typeof part?.text === "string" ? part.text : "")).join("")
    : content;
  return {
    role: role === "developer" || role === "system" ? "system" : role === "assistant" ? "assistant" : "user",
    content: typeof text === "string" ? text : "",
  };
}
