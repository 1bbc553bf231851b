/**
 * Ids, made once per event and kept over every retry: an event's id is its idempotency key. A bound id contains its
 * interaction's ULID, so that the service finds the interaction by the id alone.
 */
const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const BOUND_ID = /^(?:int_([0-7][0-9A-HJKMNP-TV-Z]{25})|out_([0-7][0-9A-HJKMNP-TV-Z]{25})(?:_[A-Za-z0-9_-]{1,33})?)$/;

/** `length` random characters of Crockford's base 32, 5 bits each. */
function randomCharacters(length: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => CROCKFORD[byte & 31]).join("");
}

/** 26 characters of Crockford's base 32: 48 bits of milliseconds since 1970, then 80 random bits. */
export function ulid(): string {
  let time = "";
  for (let rest = Date.now(), digit = 0; digit < 10; digit++, rest = Math.floor(rest / 32)) {
    time = `${CROCKFORD[rest % 32] ?? ""}${time}`;
  }
  return time + randomCharacters(16);
}

/** A fresh `int_<ULID>`. */
export function interactionId(): string {
  return `int_${ulid()}`;
}

/** The id of the interaction's first output, `out_<its ULID>`. */
export function firstOutputId(interaction: string): string {
  return `out_${findUlid(interaction) ?? ulid()}`;
}

/**
 * `<prefix>_<ULID>_<tail>` with the ULID of the first of `about` that is an interaction's or an output's id; without
 * one, `<prefix>_<fresh ULID>`.
 */
export function boundId(prefix: "out" | "fbk" | "tsk", ...about: (string | null | undefined)[]): string {
  for (const id of about) {
    const interactionUlid = findUlid(id);
    if (interactionUlid) return `${prefix}_${interactionUlid}_${randomCharacters(10)}`;
  }
  return `${prefix}_${ulid()}`;
}

function findUlid(id: string | null | undefined): string | undefined {
  const match = id ? BOUND_ID.exec(id) : null;
  return match?.[1] ?? match?.[2];
}
