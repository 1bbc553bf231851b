/** Traces an existing OpenAI client: each chat completion and each response becomes an interaction and its output. */
import type { Rlaas } from "./client.js";
import { boundId, firstOutputId, interactionId } from "./ids.js";
import { chatApi, responsesApi, type AnswerFields, type Api, type Fields } from "./openai-answers.js";
import type { Interaction } from "./types.js";

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
  chat: { completions: { create: (...request: never[]) => unknown } };
}
/**
 * The promise of the `openai` client: `asResponse` gives the raw response, and `_thenUnwrap` maps the answer to a
 * promise that still has both.
 */
interface AnswerPromise extends Promise<Fields> {
  asResponse?: () => Promise<Response>;
  withResponse?: () => Promise<unknown>;
  _thenUnwrap?: (map: Unwrap) => AnswerPromise;
}
type Unwrap = (answer: Fields, ...rest: unknown[]) => Fields;
type Method = (...request: unknown[]) => unknown;

const REMEMBERED_ANSWERS = 1000;
const PARTS = new Set(["chat", "completions", "responses", "beta"]);
const traces = new WeakMap<object, Trace>();
/** The latest answers by OpenAI's id; null where two answers had the same. */
const tracesByAnswerId = new Map<string, Trace | null>();

/**
 * The ids of what a wrapped client returned: a completion, a response, a stream or a raw response, and the final answer
 * of a stream; undefined for any other object. Of `runTools` they are the latest call's.
 */
export function traceOf(answer: object): Trace | undefined {
  const { id } = answer as { id?: unknown };
  return traces.get(answer) ?? (typeof id === "string" ? (tracesByAnswerId.get(id) ?? undefined) : undefined);
}

/**
 * `client` with its chat completions and its Responses API traced: `create`, streaming or not, `parse`, `stream`,
 * `runTools`, with `withResponse` and `asResponse`, in copies by `withOptions` too. The original client stays as it is,
 * and the calls return and throw what they did before. A stream is reported when it ends, even early; a stream that
 * `asResponse` gives is reported without its answer. Calls with a model of RLaaS (`rlaas::<skill>`) are not reported:
 * the service records them itself. Texts and calls of functions are reported; images and audio are not. The tokens of
 * a streamed completion are reported where the call's `stream_options` have `include_usage`.
 */
export function wrapOpenAI<C extends OpenAILike>(client: C, tracing: Tracing): C {
  return traceClient(client, tracing, () => undefined);
}

/** `onTrace` gets the ids of each call before it is sent. */
function traceClient<C extends object>(client: C, tracing: Tracing, onTrace: (ids: Trace) => void): C {
  const traced: C = overlay(client, (name, value) => {
    if (name === "withOptions" && typeof value === "function")
      return (...options: unknown[]) =>
        traceClient((value as Method).apply(client, options) as object, tracing, onTrace);
    if (isPart(name, value)) return tracePart(value, [String(name)]);
    return typeof value === "function" ? (value.bind(client) as unknown) : value; // private fields need the original
  });

  const tracePart = (part: object, path: string[]): object =>
    overlay(part, (name, value) => {
      if (name === "_client") return traced; // through which `parse`, `stream` and `runTools` ask
      if (isPart(name, value)) return tracePart(value, [...path, String(name)]);
      if (typeof value !== "function") return value;
      const method = value as Method;
      const api = findApi(path);
      if (name === "create" && api) return traceCreate(method.bind(part), api, tracing, onTrace);
      if (name !== "stream" && name !== "runTools") return method;
      return (...request: unknown[]) => {
        const asking = traceClient(client, tracing, (ids) => void traces.set(stream, ids));
        const own = path.reduce<object>((owner, step) => (owner as Record<string, object>)[step] ?? owner, asking);
        const stream = method.apply(own, request) as object; // it asks later
        return stream;
      };
    });

  return traced;
}

function isPart(name: PropertyKey, value: unknown): value is object {
  return PARTS.has(name as string) && typeof value === "object" && value !== null;
}

function findApi(path: string[]): Api | undefined {
  const name = path.slice(-2).join(".");
  return name === "chat.completions" ? chatApi : name.endsWith("responses") ? responsesApi : undefined;
}

function traceCreate(create: Method, api: Api, tracing: Tracing, onTrace: (ids: Trace) => void): Method {
  return (body, ...rest) => {
    const promise = create(body, ...rest) as AnswerPromise;
    const request = (body ?? {}) as Fields;
    if (String(request.model).startsWith("rlaas::")) return promise;
    const call = new Call(tracing, api, request);
    onTrace(call.ids);
    (promise.asResponse?.() ?? promise).catch((error: unknown) => {
      call.reportError(error);
    });
    const map = (answer: Fields): Fields => call.reportAnswer(answer);
    return followResponse(promise._thenUnwrap?.(map) ?? promise.then(map), call);
  };
}

/** Also report a response that the application takes from `promise` in place of the answer in it. */
function followResponse(promise: AnswerPromise, call: Call): AnswerPromise {
  const { asResponse, withResponse, _thenUnwrap: thenUnwrap } = promise;
  let isParsed = false;
  if (!asResponse || !withResponse || !thenUnwrap) return promise;
  return Object.assign(promise, {
    asResponse: async () => {
      const response = await asResponse.call(promise);
      return isParsed ? response : call.reportResponse(response);
    },
    withResponse: () => {
      isParsed = true;
      return withResponse.call(promise);
    },
    _thenUnwrap: (map: Unwrap) => followResponse(thenUnwrap.call(promise, call.rememberResultsOf(map)), call),
  });
}

/** One traced call, from its arguments to its one report. */
class Call {
  readonly ids: Trace;
  private readonly interaction: Pick<Interaction, "messages" | "parameters">;
  private readonly metadata: Record<string, string | null>;
  private readonly startedAt = new Date();
  private isReported = false;

  constructor(
    private readonly tracing: Tracing,
    private readonly api: Api,
    { model, previous_response_id: previous, ...request }: Fields,
  ) {
    const interaction_id = interactionId();
    const tools = api.readTools(request);
    this.ids = { interaction_id, output_id: firstOutputId(interaction_id) };
    this.interaction = { messages: api.readMessages(request), ...(tools.length && { parameters: { tools } }) };
    this.metadata = {
      model: typeof model === "string" ? model : null,
      ...(api === responsesApi && { api: "responses" }),
      ...(typeof previous === "string" && { previous_response_id: previous }),
    };
  }

  /** Report the interaction alone, with the error's name. */
  reportError(error: unknown): void {
    this.report([], readErrorName(error));
  }

  /** Report an answer now and a stream when it ends; do not report anything else. Returns `answer`. */
  reportAnswer(answer: Fields): Fields {
    const answers = this.api.readAnswers(answer);
    if (Symbol.asyncIterator in answer) {
      traces.set(answer, this.ids);
      this.reportAtEnd(answer as unknown as AsyncIterable<Fields>);
    } else if (answers) {
      traces.set(answer, this.ids);
      this.rememberAnswer(answer.id);
      this.report(answers, answers.length || typeof answer.status !== "string" ? undefined : answer.status);
    }
    return answer;
  }

  /** Report the JSON in a response, which the application still reads itself; of a stream, the interaction alone. */
  reportResponse(response: Response): Response {
    traces.set(response, this.ids);
    if (!response.headers.get("content-type")?.includes("json")) this.report([]);
    else if (!response.bodyUsed)
      response
        .clone()
        .json()
        .then((answer) => this.reportAnswer(answer as Fields))
        .catch((error: unknown) => {
          this.reportError(error);
        });
    return response;
  }

  /** `map`, whose results have this call's trace too. */
  rememberResultsOf(map: Unwrap): Unwrap {
    return (answer, ...rest) => {
      const result = map(answer, ...rest);
      traces.set(result, this.ids);
      return result;
    };
  }

  /** Replace the stream's iterator, from which its own tee() and toReadableStream() read too. */
  private reportAtEnd(stream: AsyncIterable<Fields> & { iterator?: () => AsyncIterator<Fields> }): void {
    const read = (stream.iterator ?? stream[Symbol.asyncIterator]).bind(stream);
    const parts = this.api.beginAnswer();
    const add = (part: Fields): void => {
      this.rememberAnswer(parts.add(part));
    };
    const end = (error = parts.error()): void => {
      this.report(parts.answers(), error);
    };
    async function* readAndReport(): AsyncGenerator<Fields> {
      let failure: string | undefined;
      try {
        for await (const part of { [Symbol.asyncIterator]: read }) {
          add(part);
          yield part;
        }
      } catch (error) {
        failure = readErrorName(error);
        throw error;
      } finally {
        end(failure);
      }
    }
    for (const name of ["iterator", Symbol.asyncIterator])
      Object.defineProperty(stream, name, { value: readAndReport });
  }

  private rememberAnswer(id: unknown): void {
    if (typeof id !== "string") return;
    const earlier = tracesByAnswerId.get(id);
    tracesByAnswerId.set(id, earlier === undefined || earlier === this.ids ? this.ids : null);
    const [oldest = id] = tracesByAnswerId.keys();
    if (tracesByAnswerId.size > REMEMBERED_ANSWERS) tracesByAnswerId.delete(oldest);
  }

  private report(answers: AnswerFields[], error?: string): void {
    if (this.isReported) return;
    this.isReported = true;
    const { rlaas, ...about } = this.tracing;
    const { startedAt, ids, interaction } = this;
    const { interaction_id } = ids;
    try {
      rlaas.logInteraction({
        ...about,
        ...interaction,
        interaction_id,
        occurred_at: startedAt.toISOString(),
        metadata: { ...this.metadata, ...(error && { error }) },
      });
      const latency_ms = Math.max(0, Date.now() - startedAt.getTime());
      const { messages = null } = interaction;
      for (const [index, answer] of answers.entries()) {
        const output_id = index ? boundId("out", interaction_id) : ids.output_id;
        rlaas.logOutput({ ...about, ...answer, interaction_id, output_id, latency_ms, messages });
      }
    } catch {
      // Only a strict client throws. The host's call to OpenAI has succeeded, so the host gets its answer.
    }
  }
}

function readErrorName(error: unknown): string {
  return error instanceof Error ? error.constructor.name : "unknown";
}

/** `target` with `replace(name, value)` in place of each property's value. */
function overlay<T extends object>(target: T, replace: (name: PropertyKey, value: unknown) => unknown): T {
  return new Proxy(target, { get: (original, name) => replace(name, Reflect.get(original, name, original)) });
}
