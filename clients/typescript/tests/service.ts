/** A service on the loopback that answers as RLaaS does, and can be told to fail. */
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";

export interface Received {
  path: string;
  headers: IncomingHttpHeaders;
  body: Record<string, unknown> & { events: Record<string, string>[] };
}
export interface Reply {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
  /** Raw body of server-sent events. */
  stream?: string;
}
type Rule = (request: Received) => Reply | undefined;

export const KEY = "rlp_01jd0000000000000000000000_secret";

export class Service {
  /** Every request, in the order it came. */
  readonly received: Received[] = [];
  /** Events stored, by id. */
  readonly stored = new Map<string, Record<string, string>>();
  /** Asked first, oldest first; one that answers is used up. */
  readonly rules: Rule[] = [];
  private server: Server | undefined;
  private waiting: (() => void)[] = [];
  url = "";

  async start(port = 0): Promise<this> {
    this.server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        response.setHeader("Access-Control-Allow-Origin", "*");
        response.setHeader("Access-Control-Allow-Headers", "Authorization, Content-Type");
        if (request.method === "OPTIONS") return response.writeHead(204).end();
        const body = JSON.parse(Buffer.concat(chunks).toString()) as Received["body"];
        const received = { path: request.url ?? "", headers: request.headers, body };
        this.received.push(received);
        const reply = this.reply(received);
        const type = reply.stream === undefined ? "application/json" : "text/event-stream";
        response.writeHead(reply.status, { "Content-Type": type, ...reply.headers });
        response.end(reply.stream ?? JSON.stringify(reply.body ?? {}));
        for (const wake of this.waiting.splice(0)) wake();
      });
    });
    await new Promise<void>((resolve) => this.server?.listen(port, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
    return this;
  }

  async stop(): Promise<void> {
    this.server?.closeAllConnections();
    await new Promise((resolve) => this.server?.close(resolve));
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** Batches of event ids, as they came. */
  get batches(): string[][] {
    return this.received.filter(({ path }) => path === "/v1/events:batch").map(({ body }) => body.events.map(idOf));
  }

  /** Resolves once `done` holds, looked at after each request. */
  async until(done: () => boolean): Promise<void> {
    while (!done()) await new Promise<void>((resolve) => this.waiting.push(resolve));
  }

  private reply(request: Received): Reply {
    for (const [index, rule] of this.rules.entries()) {
      const reply = rule(request);
      if (reply) {
        this.rules.splice(index, 1);
        return reply;
      }
    }
    if (request.path !== "/v1/events:batch") return { status: 404, body: error("not_found") };
    const results = request.body.events.map((event) => {
      const id = idOf(event);
      const existing = this.stored.get(id);
      if (existing && JSON.stringify(existing) !== JSON.stringify(event)) return { status: 409, ...error("conflict") };
      this.stored.set(id, event);
      return { status: existing ? 200 : 201, id, idempotent_replay: Boolean(existing), pending: false };
    });
    return { status: 200, body: { results } };
  }
}

/** The id of an event's own. */
export function idOf(event: Record<string, string>): string {
  return event[`${event.type ?? ""}_id`] ?? "";
}

export function error(code: string, param: string | null = null): { error: Record<string, unknown> } {
  return { error: { type: "x", code, message: `no: ${code}`, param, request_id: "req_1" } };
}

/** Answers one batch with a status for each of its events. */
export function results(...statuses: number[]): Rule {
  return ({ path, body }) =>
    path === "/v1/events:batch"
      ? {
          status: 200,
          body: {
            results: statuses.map((status, index) =>
              status < 300 ? { status, id: idOf(body.events[index] ?? {}) } : { status, ...error("x", "label") },
            ),
          },
        }
      : undefined;
}

/** Answers one request with `reply`. */
export function once(reply: Reply): Rule {
  return () => reply;
}
