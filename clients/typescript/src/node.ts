/** For Node: a spool in a directory. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { inOrder, isEntry, type Entry, type Spool } from "./spool.js";

/**
 * A spool of one file for each event in `directory`, which processes may share. An event is written before the call
 * that submits it returns (tens of microseconds on a local disk) and survives SIGKILL; a loss of power may take the
 * last few. Files are for the owner alone (0600). Processes that drain it at the same moment may send an event twice;
 * its id makes the second delivery a replay.
 */
export function fileSpool(directory: string): Spool {
  const known = new Map<string, Entry>(); // by file, so that a list reads each but once
  const make = (): void => void mkdirSync(directory, { recursive: true, mode: 0o700 });
  try {
    make();
  } catch {
    // Putting says so, to the client, which goes on in memory.
  }
  return {
    put(entries) {
      if (!existsSync(directory)) make();
      for (const entry of entries) {
        const path = join(directory, entry.key);
        writeFileSync(`${path}.part`, JSON.stringify(entry), { mode: 0o600 });
        renameSync(`${path}.part`, `${path}.json`);
        known.set(`${entry.key}.json`, entry);
      }
    },
    list() {
      const names = new Set(readdirSync(directory).filter((name) => name.endsWith(".json")));
      for (const name of known.keys()) if (!names.has(name)) known.delete(name);
      for (const name of names) {
        const entry = known.get(name) ?? read(join(directory, name));
        if (entry) known.set(name, entry);
      }
      return inOrder([...known.values()]);
    },
    delete(keys) {
      for (const key of keys) rmSync(join(directory, `${key}.json`), { force: true });
    },
  };
}

function read(path: string): Entry | undefined {
  try {
    const entry: unknown = JSON.parse(readFileSync(path, "utf8"));
    return isEntry(entry) ? entry : undefined;
  } catch {
    return undefined; // another process delivered it meanwhile
  }
}
