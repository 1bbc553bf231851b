/**
 * Ids, made once per event and kept over every retry: the id is the idempotency key. A bound id contains its
 * interaction's ULID, so that the service finds the interaction from the id alone.
 */
const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const BOUND = /^(?:int_([0-7][0-9A-HJKMNP-TV-Z]{25})|out_([0-7][0-9A-HJKMNP-TV-Z]{25})(?:_[A-Za-z0-9_-]{1,33})?)$/;

/** So many random Crockford characters, 5 bits each. */
function random(length: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => CROCKFORD[byte & 31]).join("");
}

/** 26 Crockford characters: 48 bits of milliseconds, then 80 random bits. */
export function ulid(): string {
  let time = "";
  for (let left = Date.now(), digit = 0; digit < 10; digit++, left = Math.floor(left / 32)) {
    time = `${CROCKFORD[left % 32] ?? ""}${time}`;
  }
  return time + random(16);
}

/** A fresh `int_<ULID>`. */
export function interactionId(): string {
  return `int_${ulid()}`;
}

/** The id of the interaction's first output, `out_<its ULID>`. */
export function firstOutputId(interaction: string): string {
  return `out_${ulidOf(interaction) ?? ulid()}`;
}

/**
 * `<prefix>_<ULID>_<tail>`, bound to the first of `about` that is an interaction's or output's id, else
 * `<prefix>_<fresh ULID>`.
 */
export function boundId(prefix: "out" | "fbk" | "tsk", ...about: (string | null | undefined)[]): string {
  for (const id of about) {
    const bound = ulidOf(id);
    if (bound) return `${prefix}_${bound}_${random(10)}`;
  }
  return `${prefix}_${ulid()}`;
}

function ulidOf(id: string | null | undefined): string | undefined {
  const match = id ? BOUND.exec(id) : null;
  return match?.[1] ?? match?.[2];
}
