/** For Node: a spool in a directory. */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { inOrder, isEntry, type Entry, type Spool } from "./spool.js";

/**
 * A spool of one file for each event in `directory`, which processes may share. An event is written before the call that submits it
 * returns (tens of microseconds on a local disk) and survives SIGKILL; a loss of power may take the last few. Files are for the owner
 * alone (0600). Processes that drain it at the same moment may send an event twice; its id makes the second delivery a replay.
 */
export function fileSpool(directory: string): Spool {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  return {
    put(entries) {
      for (const entry of entries) {
        const path = join(directory, entry.key);
        writeFileSync(`${path}.part`, JSON.stringify(entry), { mode: 0o600 });
        renameSync(`${path}.part`, `${path}.json`);
      }
    },
    list() {
      const names = readdirSync(directory).filter((name) => name.endsWith(".json"));
      return inOrder(names.flatMap((name) => read(join(directory, name))));
    },
    delete(keys) {
      for (const key of keys) rmSync(join(directory, `${key}.json`), { force: true });
    },
  };
}

function read(path: string): Entry[] {
  try {
    const entry: unknown = JSON.parse(readFileSync(path, "utf8"));
    return isEntry(entry) ? [entry] : [];
  } catch {
    return []; // another process delivered it meanwhile
  }
}
