/** Traces an existing OpenAI client: each chat completion becomes an interaction and its output. */
import type { Rlaas } from "./client.js";
import { firstOutputId, interactionId } from "./ids.js";
import type { Message, Output } from "./types.js";

/** What each traced call is reported with; wrap anew for another thread or user, it costs nothing. */
export interface Tracing {
  rlaas: Pick<Rlaas, "logInteraction" | "logOutput">;
  skill: string;
  thread_id?: string;
  user_id?: string;
  tags?: string[];
}

/** The ids under which a traced call is reported; feedback takes either. */
export interface Trace {
  interaction_id: string;
  output_id: string;
}

interface OpenAILike {
  chat: { completions: { create: (...request: never[]) => unknown; parse?: (...request: never[]) => unknown } };
}
interface Asked {
  model?: string;
  messages?: ({ role: string; content?: unknown } | null)[];
}
interface Answered {
  choices?: {
    message?: { content?: string | null };
    delta?: { content?: string | null };
    finish_reason?: string | null;
  }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
}
/**
 * The client's own promise has more than `then`: it can be asked for the raw response, and mapped so that it still can.
 */
type Answering = Promise<object> & {
  asResponse?: () => Promise<unknown>;
  _thenUnwrap?: (map: (answer: object) => object) => Answering;
};
type Create = (body: Asked, ...rest: unknown[]) => Answering;
type Streamed = Pick<Output, "text" | "finish_reason" | "usage">;

const traces = new WeakMap<object, Trace>();

/** The ids of a completion, or of a stream, that a wrapped client gave. */
export function traceOf(answer: object): Trace | undefined {
  return traces.get(answer);
}

/**
 * `client` with its `chat.completions.create`, streaming or not, and `.parse` traced. The original stays as it is; what
 * the calls return and throw is unchanged. A stream is reported when it ends, also early. Calls with a model of RLaaS
 * (`rlaas::<skill>`) pass through: the service records them itself. Text is reported; images, audio and tool calls are
 * not. Tokens of a stream are known where the call has `stream_options: { include_usage: true }`.
 */
export function wrapOpenAI<C extends OpenAILike>(client: C, tracing: Tracing): C {
  const { completions } = client.chat;
  const traced = (method: (...request: never[]) => unknown): Create => {
    const original = method.bind(completions) as unknown as Create;
    return (body, ...rest) => {
      const answering = original(body, ...rest);
      if (body.model?.startsWith("rlaas::")) return answering;
      const call = new Call(tracing, body);
      (answering.asResponse?.() ?? answering).catch((error: unknown) => {
        call.failed(error);
      });
      const map = (answer: object): object => call.answered(answer);
      return answering._thenUnwrap?.(map) ?? answering.then(map);
    };
  };
  const { create, parse } = completions;
  const reporting = over(completions, { create: traced(create), ...(parse && { parse: traced(parse) }) });
  return over(client, { chat: over(client.chat, { completions: reporting }) });
}

/** One traced call, from its arguments to its report. */
class Call {
  private readonly ids: Trace;
  private readonly messages: Message[];
  private readonly model: string | null;
  private readonly startedAt = new Date();

  constructor(
    private readonly tracing: Tracing,
    body: Asked,
  ) {
    const interaction_id = interactionId();
    this.ids = { interaction_id, output_id: firstOutputId(interaction_id) };
    this.model = body.model ?? null;
    this.messages = Array.isArray(body.messages)
      ? body.messages.flatMap((message) => (message ? [plain(message)] : []))
      : [];
  }

  /** Report the interaction alone, with the error's name. */
  failed(error: unknown): void {
    this.report({ error: nameOf(error) });
  }

  /** Report a completion now, a stream when it ends; anything else is left alone. */
  answered(answer: object): object {
    const { choices, usage } = answer as Answered;
    if (Symbol.asyncIterator in answer) {
      traces.set(answer, this.ids);
      this.watch(answer as AsyncIterable<object>);
    } else if (choices) {
      traces.set(answer, this.ids);
      const [first] = choices;
      const text = first?.message?.content ?? "";
      this.report({}, { text, finish_reason: first?.finish_reason ?? null, usage: tokens(usage) });
    }
    return answer;
  }

  /** Read along, in the stream itself: its own tee() and toReadableStream() read from there too. */
  private watch(stream: AsyncIterable<object> & { iterator?: () => AsyncIterator<object> }): void {
    const read = (stream.iterator ?? stream[Symbol.asyncIterator]).bind(stream);
    const end = (metadata: Record<string, string>, output: Streamed): void => {
      this.report(metadata, output);
    };
    async function* watched(): AsyncGenerator<object> {
      const output: Streamed = { text: "", finish_reason: null, usage: null };
      const metadata: Record<string, string> = {};
      try {
        for await (const chunk of { [Symbol.asyncIterator]: read }) {
          const { choices, usage } = chunk as Answered;
          output.text += choices?.[0]?.delta?.content ?? "";
          output.finish_reason = choices?.[0]?.finish_reason ?? output.finish_reason ?? null;
          output.usage = tokens(usage) ?? output.usage ?? null;
          yield chunk;
        }
      } catch (error) {
        metadata.error = nameOf(error);
        throw error;
      } finally {
        end(metadata, output);
      }
    }
    for (const name of ["iterator", Symbol.asyncIterator]) Object.defineProperty(stream, name, { value: watched });
  }

  private report(metadata: Record<string, string>, output?: Streamed): void {
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
      // Only a strict client throws, and the host's call to OpenAI has succeeded: it gets its answer.
    }
  }
}

/** `target` with other `values` under their names. */
function over<T extends object>(target: T, values: Record<PropertyKey, unknown>): T {
  return new Proxy(target, {
    get(held, wanted) {
      if (Object.hasOwn(values, wanted)) return values[wanted];
      const found: unknown = Reflect.get(held, wanted, held);
      return typeof found === "function" ? (found.bind(held) as unknown) : found; // private fields need the original
    },
  });
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.constructor.name : "unknown";
}

function tokens(usage: Answered["usage"]): { input_tokens: number; output_tokens: number } | null {
  return usage ? { input_tokens: usage.prompt_tokens, output_tokens: usage.completion_tokens } : null;
}

function plain({ role, content }: { role: string; content?: unknown }): Message {
  const text = Array.isArray(content)
    ? content.map((part: { text?: unknown } | null) => (typeof part?.text === "string" ? part.text : "")).join("")
    : content;
  return {
    role: role === "developer" || role === "system" ? "system" : role === "assistant" ? "assistant" : "user",
    content: typeof text === "string" ? text : "",
  };
}
